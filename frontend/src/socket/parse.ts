/**
 * Every message is checked against the generated schema before anything uses it.
 *
 * The schema's rule for each run of a mask is checked in a loop of our own: a ragged mask has ten
 * thousand runs, for which an interpreted schema takes 10 ms and more of the time until it is seen.
 * The same loop holds what the schema cannot say, that the runs tile the slice.
 */
import { Validator } from "@cfworker/json-schema";
import type { RunLengths } from "../session/masks";
import type { FromBrowser, ToBrowser } from "../session/session";
import schema from "../protocol.schema.json";

export class UnreadableMessage extends Error {}

/** The message of a text from the server; throws UnreadableMessage for anything else. */
export function parseMessage(text: string): ToBrowser {
  return parse(text, toBrowser) as ToBrowser; // the type is generated from the schema it was held to
}

/** The message of a text that a browser sent: what the contract's examples are tried with. */
export function parseOwnMessage(text: string): FromBrowser {
  return parse(text, fromBrowser) as FromBrowser;
}

// An interpreter, not a compiler: the page's content security policy allows no eval.
const toBrowser = validatorOf("to_browser");
const fromBrowser = validatorOf("from_browser");

function validatorOf(direction: "to_browser" | "from_browser"): Validator {
  const { $defs, properties } = schema;
  const { RunLengths: runs } = $defs;
  const withoutRuns = { ...runs, properties: { ...runs.properties, counts: { type: "array" } } };
  const options = { $schema: schema.$schema, $defs: { ...$defs, RunLengths: withoutRuns }, ...properties[direction] };
  return new Validator(options, "2020-12");
}

function parse(text: string, validator: Validator): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new UnreadableMessage(`not JSON: ${String(error)}`);
  }
  const { valid, errors } = validator.validate(value);
  if (!valid) throw new UnreadableMessage(errors.at(-1)?.error ?? "against the schema");
  checkMasks(value);
  return value;
}

/** Every mask anywhere in a message that is otherwise as the schema says. */
function checkMasks(value: unknown): void {
  if (typeof value !== "object" || value === null) return;
  if ("counts" in value) checkRuns(value as RunLengths);
  else Object.values(value).forEach(checkMasks);
}

function checkRuns({ height, width, counts }: RunLengths): void {
  let sum = 0;
  counts.forEach((count, run) => {
    if (!Number.isInteger(count) || count < 0 || (count === 0 && run > 0)) {
      throw new UnreadableMessage("a run length is no count of pixels");
    }
    sum += count;
  });
  if (sum !== height * width) throw new UnreadableMessage("the run lengths do not sum to height x width");
}
