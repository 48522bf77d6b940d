/** What is to be done: for annotators what comes next, for reviewers what waits for them. */
import { Button, Group, Loader, SegmentedControl, Stack, Table, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import type { Schemas } from "../api/client";
import { queries } from "../api/queries";
import { Empty } from "./Empty";
import type { Project } from "./ProjectPage";
import { SuggestedNext } from "./SuggestedNext";
import { TaskState } from "./taskStates";
import { modalityInWords, slicesInWords } from "./words";

type Task = Schemas["TaskSummary"];
type Filter = "todo" | "review" | "all";

const SHOWN: Readonly<Record<Filter, readonly Task["state"][]>> = {
  todo: ["returned", "in_progress", "open"],
  review: ["submitted"],
  all: ["returned", "in_progress", "open", "submitted", "accepted"],
};

export function TasksTab({ project }: { project: Project }) {
  const { data: tasks, isPending } = useQuery(queries.tasks(project.id));
  const [filter, setFilter] = useState<Filter>(project.role === "reviewer" ? "review" : "todo");
  if (isPending) return <Loader aria-label="Loading tasks" />;
  const all = tasks ?? [];
  // Returned tasks first: somebody waits for them.
  const shown = SHOWN[filter].flatMap((state) => all.filter((task) => task.state === state));
  const first = shown[0];
  return (
    <Stack>
      <Group justify="space-between">
        <SegmentedControl
          value={filter}
          onChange={(value) => setFilter(value)}
          data={[
            { value: "todo", label: `To do (${count(all, SHOWN.todo)})` },
            { value: "review", label: `To review (${count(all, SHOWN.review)})` },
            { value: "all", label: `All (${all.length})` },
          ]}
        />
        {first !== undefined && filter !== "all" && (
          <Button component={Link} to={`/tasks/${first.id}`}>
            {filter === "review" ? "Review the next one" : "Go on with the next one"}
          </Button>
        )}
      </Group>
      <SuggestedNext project={project} />
      {shown.length === 0 ? (
        <Empty title={filter === "review" ? "Nothing waits for a review" : "Nothing to do"}>
          {filter === "review"
            ? "Tasks appear here as annotators submit them."
            : "Every series of the project's studies is a task. New ones appear here as studies come in; what is in quarantine, once a lead has released it."}
        </Empty>
      ) : (
        <Table.ScrollContainer minWidth={820}>
          <Table highlightOnHover>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Study</Table.Th><Table.Th>Subject</Table.Th><Table.Th>Modality</Table.Th>
                <Table.Th>Masks</Table.Th><Table.Th>State</Table.Th><Table.Th>Since</Table.Th><Table.Th />
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {shown.map((task) => (
                <Table.Tr key={task.id} data-testid="task-row">
                  <Table.Td>{task.study_number}</Table.Td>
                  <Table.Td><Text ff="monospace" size="sm">{task.subject}</Text></Table.Td>
                  <Table.Td>{modalityInWords(task.modality)}, {slicesInWords(task.slices)}</Table.Td>
                  <Table.Td>{task.accepted_masks}</Table.Td>
                  <Table.Td>
                    <TaskState state={task.state} />
                    {task.state === "returned" && task.last_comment && (
                      <Text size="xs" c="dimmed" mt={4}>“{task.last_comment}”</Text>
                    )}
                    {task.state === "submitted" && task.submitted_by && (
                      <Text size="xs" c="dimmed" mt={4}>by {task.submitted_by}</Text>
                    )}
                  </Table.Td>
                  <Table.Td><Text size="sm" c="dimmed">{new Date(task.state_changed_at).toLocaleString()}</Text></Table.Td>
                  <Table.Td ta="right">
                    <Button component={Link} to={`/tasks/${task.id}`} size="compact-sm" variant="light">Open</Button>
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
    </Stack>
  );
}

function count(tasks: readonly Task[], states: readonly Task["state"][]): number {
  return tasks.filter(({ state }) => states.includes(state)).length;
}
