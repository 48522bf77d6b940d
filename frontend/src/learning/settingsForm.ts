/** The learning settings as a form holds them: shares in percent, numbers as they are typed. */
import type { Schemas } from "../api/client";

export type LearningSettings = Schemas["LearningSettingsIn"];
type Typed = string | number;

export interface SettingsForm {
  readonly schedule: LearningSettings["schedule"];
  readonly trainable: LearningSettings["trainable"];
  readonly parent: LearningSettings["parent"];
  readonly automatic: boolean;
  readonly every_masks: Typed;
  readonly window_from: Typed;
  readonly window_until: Typed;
  readonly budget_minutes: Typed;
  readonly epochs: Typed;
  readonly learning_rate: Typed;
  readonly confidence_percent: Typed;
  readonly tolerance: Typed;
  readonly held_out_percent: Typed;
}

export function formOf({ confidence, held_out_share, ...same }: LearningSettings): SettingsForm {
  return { ...same, confidence_percent: hundredfold(confidence), held_out_percent: hundredfold(held_out_share) };
}

/** What the form says; null while a field is empty or outside of what the server takes. */
export function settingsOf(form: SettingsForm): LearningSettings | null {
  const { schedule, trainable, parent, automatic } = form;
  const read = {
    every_masks: whole(form.every_masks, 1, 100_000),
    window_from: whole(form.window_from, 0, 23),
    window_until: whole(form.window_until, 0, 23),
    budget_minutes: whole(form.budget_minutes, 1, 7 * 24 * 60),
    epochs: whole(form.epochs, 1, 1000),
    learning_rate: within(form.learning_rate, (rate) => rate > 0 && rate <= 0.1),
    confidence: hundredth(within(form.confidence_percent, (percent) => percent >= 50 && percent < 100)),
    tolerance: within(form.tolerance, (dice) => dice >= 0 && dice <= 1),
    held_out_share: hundredth(within(form.held_out_percent, (percent) => percent > 0 && percent < 100)),
  };
  return isComplete(read) ? { schedule, trainable, parent, automatic, ...read } : null;
}

export function areSame(a: LearningSettings, b: LearningSettings): boolean {
  return (Object.keys(a) as (keyof LearningSettings)[]).every((name) => a[name] === b[name]);
}

/** How the project learns, for those who do not decide it. */
export function settingsInWords({ schedule, every_masks, automatic, ...settings }: LearningSettings): string {
  const { window_from, window_until, confidence } = settings;
  const hour = (of: number) => `${String(of).padStart(2, "0")}:00`;
  const begins = {
    off: "Runs begin by hand only",
    nightly: "A run begins every night when there are new accepted masks",
    masks: `A run begins after every ${every_masks} newly accepted masks`,
  }[schedule];
  const hours = schedule === "off" || window_from === window_until ? "" : `, between ${hour(window_from)} and ${hour(window_until)} UTC`;
  const then = automatic
    ? `A model that is better with ${hundredfold(confidence)} % confidence answers by itself.`
    : "A lead decides whether a better model answers.";
  return `${begins}${hours}. ${then}`;
}

function isComplete<Read extends Record<string, number | null>>(read: Read): read is { [Name in keyof Read]: number } & Read {
  return Object.values(read).every((value) => value !== null);
}

function within(typed: Typed, isAllowed: (value: number) => boolean): number | null {
  const value = typed === "" ? NaN : Number(typed);
  return Number.isFinite(value) && isAllowed(value) ? value : null;
}

function whole(typed: Typed, least: number, most: number): number | null {
  return within(typed, (value) => Number.isInteger(value) && value >= least && value <= most);
}

// Rounded: 0.29 × 100 is 28.999999999999996.
const hundredfold = (share: number): number => Number((share * 100).toPrecision(12));
const hundredth = (percent: number | null): number | null => (percent === null ? null : Number((percent / 100).toPrecision(12)));
