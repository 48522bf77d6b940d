/** What the gate says of a model, in words and colour, the same everywhere. */
import { Badge } from "@mantine/core";
import type { Schemas } from "../api/client";

export type Verdict = Schemas["Verdict"];

const LOOKS: Readonly<Record<Verdict, { text: string; color: string }>> = {
  better: { text: "Better", color: "teal" },
  not_better: { text: "Not better", color: "gray" },
  insufficient: { text: "Not enough held-out data", color: "yellow" },
  leaked: { text: "Leaked", color: "red" },
};

export function VerdictBadge({ verdict }: { verdict: Verdict }) {
  return <Badge variant="light" color={LOOKS[verdict].color} data-testid="verdict">{LOOKS[verdict].text}</Badge>;
}
