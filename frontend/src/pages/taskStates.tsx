/** A task's state in words and colour, the same everywhere. */
import { Badge } from "@mantine/core";
import type { Schemas } from "../api/client";

type State = Schemas["TaskSummary"]["state"];

const LOOKS: Readonly<Record<State, { text: string; color: string }>> = {
  open: { text: "Not started", color: "gray" },
  in_progress: { text: "In progress", color: "blue" },
  submitted: { text: "Waiting for review", color: "yellow" },
  returned: { text: "Returned", color: "orange" },
  accepted: { text: "Accepted", color: "teal" },
};

export function TaskState({ state }: { state: State }) {
  return <Badge variant="light" color={LOOKS[state].color} data-testid="task-state">{LOOKS[state].text}</Badge>;
}
