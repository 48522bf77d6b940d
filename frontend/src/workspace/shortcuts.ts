/** The workspace's keys: one table, used to act and to show. */
import { MAX_RADIUS, type Tool } from "../session/session";

export type Command =
  | { readonly kind: "tool"; readonly tool: Tool }
  | { readonly kind: "radius"; readonly factor: number }
  | { readonly kind: "slices"; readonly by: number }
  | { readonly kind: "label"; readonly index: number }
  | { readonly kind: "undo" | "redo" | "clear" | "accept" | "submit" | "help" | "masks" | "fit" };

export interface Shortcut {
  readonly chords: readonly string[]; // "mod" is Ctrl, or Cmd on a Mac
  readonly shown: string;
  readonly does: string;
  readonly command: Command;
}

export interface ShortcutGroup {
  readonly name: string;
  readonly shortcuts: readonly Shortcut[];
}

const tool = (key: string, name: Tool, does: string): Shortcut => ({
  chords: [key],
  shown: key.toUpperCase(),
  does,
  command: { kind: "tool", tool: name },
});

const slices = (chords: readonly string[], by: number, { shown, does }: { shown: string; does: string }): Shortcut => ({
  chords,
  shown,
  does,
  command: { kind: "slices", by },
});

export const SHORTCUTS: readonly ShortcutGroup[] = [
  {
    name: "Tools",
    shortcuts: [
      tool("p", "positive", "Point on the structure (Shift+click: not on it)"),
      tool("n", "negative", "Point beside the structure"),
      tool("b", "box", "Box around the structure"),
      tool("d", "brush", "Draw with the brush"),
      tool("e", "eraser", "Erase"),
      tool("w", "window", "Window and level: drag"),
      tool("m", "pan", "Move the image (or hold Space)"),
      { chords: ["["], shown: "[", does: "Smaller brush", command: { kind: "radius", factor: 1 / 1.25 } },
      { chords: ["]"], shown: "]", does: "Larger brush", command: { kind: "radius", factor: 1.25 } },
    ],
  },
  {
    name: "Mask",
    shortcuts: [
      { chords: ["mod+z"], shown: "Ctrl Z", does: "Undo", command: { kind: "undo" } },
      { chords: ["mod+shift+z", "mod+y"], shown: "Ctrl Shift Z", does: "Redo", command: { kind: "redo" } },
      { chords: ["escape"], shown: "Esc", does: "Clear this slice's mask", command: { kind: "clear" } },
      { chords: ["enter"], shown: "Enter", does: "Accept the mask", command: { kind: "accept" } },
      { chords: ["h"], shown: "H", does: "Hide or show masks", command: { kind: "masks" } },
      { chords: ["s"], shown: "S", does: "Submit the task", command: { kind: "submit" } },
    ],
  },
  {
    name: "Going about",
    shortcuts: [
      slices(["arrowdown", "arrowright"], 1, { shown: "↓ →", does: "Next slice (or the wheel)" }),
      slices(["arrowup", "arrowleft"], -1, { shown: "↑ ←", does: "Previous slice" }),
      slices(["pagedown"], 10, { shown: "Page ↓", does: "Ten slices on" }),
      slices(["pageup"], -10, { shown: "Page ↑", does: "Ten slices back" }),
      slices(["home"], -Infinity, { shown: "Home", does: "First slice" }),
      slices(["end"], Infinity, { shown: "End", does: "Last slice" }),
      { chords: ["f"], shown: "F", does: "Fit the image to the view", command: { kind: "fit" } },
      { chords: ["?"], shown: "?", does: "Show these keys", command: { kind: "help" } },
    ],
  },
];

export type KeyPress = Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "shiftKey" | "altKey">;

export function commandFor(press: KeyPress): Command | null {
  const chord = chordOf(press);
  if (/^[1-9]$/.test(chord)) return { kind: "label", index: Number(chord) - 1 };
  const all = SHORTCUTS.flatMap(({ shortcuts }) => shortcuts);
  return all.find(({ chords }) => chords.includes(chord))?.command ?? null;
}

export function nextRadius(radius: number, factor: number): number {
  const next = Math.round(radius * factor);
  const moved = next === radius ? radius + Math.sign(factor - 1) : next;
  return Math.min(Math.max(moved, 1), MAX_RADIUS);
}

function chordOf({ key, ctrlKey, metaKey, shiftKey, altKey }: KeyPress): string {
  const isLetter = /^[a-z]$/i.test(key);
  return [
    ...(ctrlKey || metaKey ? ["mod"] : []),
    ...(altKey ? ["alt"] : []),
    ...(shiftKey && (isLetter || key.length > 1) ? ["shift"] : []), // "?" is what was typed, with whatever keys
    key.toLowerCase(),
  ].join("+");
}
