/** Runs of learning: what they are at, how they went, and beginning one by hand. */
import { Alert, Anchor, Button, Code, Group, Loader, Modal, Progress, ScrollArea, Stack, Table, Text, Title, Tooltip } from "@mantine/core";
import { IconPlayerPlay } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState, type ReactNode } from "react";
import { client, dataOf } from "../api/client";
import { queries } from "../api/queries";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { Confirm } from "../pages/Confirm";
import { Empty } from "../pages/Empty";
import { counted } from "../pages/words";
import { JudgementTable } from "./JudgementTable";
import { LinePlot } from "./LinePlot";
import {
  curveOf, isUnderWay, partInWords, percentOf, stageInWords, timeInWords, type Run, type RunDetails as Details,
} from "./progress";
import { VerdictBadge } from "./Verdict";

export function RunsSection({ projectId, mayLearn }: { projectId: string; mayLearn: boolean }) {
  const runs = useQuery(queries.runs(projectId));
  const { data: learning } = useQuery(queries.learning(projectId));
  const [shown, setShown] = useState<string>();
  const start = useAct(
    async () => dataOf(await client.POST("/api/projects/{project_id}/runs", { params: { path: { project_id: projectId } } })),
    {
      stale: [["project", projectId, "runs"], ["project", projectId, "learning"]],
      onDone: ({ number }) => showDone(`Run ${number} begins as soon as the worker is free.`),
    },
  );
  if (runs.isPending) return <Loader aria-label="Loading runs" />;
  if (runs.error) return <Text c="red" role="alert">{runs.error.message}</Text>;
  const reason = learning?.refusal ?? null;
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={2} size="h4">Runs</Title>
        {mayLearn && (
          <Tooltip label={reason} disabled={reason === null} multiline maw={320}>
            <Button
              leftSection={<IconPlayerPlay size={16} />} disabled={reason !== null || learning === undefined}
              loading={start.isPending} onClick={() => start.mutate(undefined)}
            >
              Train now
            </Button>
          </Tooltip>
        )}
      </Group>
      {learning && (
        <Text size="sm" c="dimmed">
          {counted(learning.new_masks, "mask")} accepted since the last run. {reason ?? learning.due}
        </Text>
      )}
      {runs.data.length === 0 ? (
        <Empty title="No runs yet">
          A run fine-tunes the model on the masks of tasks that a reviewer has accepted, and judges the outcome on subjects
          that it has never learnt from.
        </Empty>
      ) : (
        <Table.ScrollContainer minWidth={720}>
          <Table highlightOnHover>
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Run</Table.Th><Table.Th>Begun by</Table.Th><Table.Th>From</Table.Th>
                <Table.Th>State</Table.Th><Table.Th>Outcome</Table.Th><Table.Th />
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {runs.data.map((run) => (
                <Table.Tr key={run.id} data-testid="run-row" data-state={run.state}>
                  <Table.Td>{run.number}</Table.Td>
                  <Table.Td>
                    {run.by ?? "the schedule"}
                    <Text size="xs" c="dimmed">{new Date(run.created_at).toLocaleString()}</Text>
                  </Table.Td>
                  <Table.Td>{run.parent.name}</Table.Td>
                  <Table.Td maw={320}><RunState run={run} /></Table.Td>
                  <Table.Td>
                    {run.verdict !== null && <VerdictBadge verdict={run.verdict} />}
                    {run.candidate !== null && <Text size="xs" c="dimmed" mt={4}>{run.candidate.name}</Text>}
                  </Table.Td>
                  <Table.Td ta="right">
                    <Button size="compact-sm" variant="light" onClick={() => setShown(run.id)}>Details</Button>
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      {shown !== undefined && (
        <RunDialog projectId={projectId} runId={shown} mayLearn={mayLearn} onClose={() => setShown(undefined)} />
      )}
    </Stack>
  );
}

function RunState({ run }: { run: Run }) {
  return (
    <Stack gap={4}>
      <Text size="sm">{stageInWords(run)}</Text>
      {isUnderWay(run) && <Progress value={percentOf(run)} animated aria-label="How far the run is" />}
      {run.state === "failed" && run.error_message && (
        <Text size="xs" c={run.error_code === "cancelled" ? "dimmed" : "red"}>{run.error_message}</Text>
      )}
      <Text size="xs" c="dimmed">{timeInWords(run)}</Text>
    </Stack>
  );
}

function RunDialog({ projectId, runId, mayLearn, onClose }: {
  projectId: string; runId: string; mayLearn: boolean; onClose: () => void;
}) {
  const { data: run, error } = useQuery(queries.run(projectId, runId));
  return (
    <Modal
      opened onClose={onClose} size={980} title={run === undefined ? "Run" : `Run ${run.number}`}
      scrollAreaComponent={ScrollArea.Autosize}
    >
      {error && <Text c="red" role="alert">{error.message}</Text>}
      {run === undefined && !error && <Loader aria-label="Loading the run" />}
      {run !== undefined && <RunDetails projectId={projectId} run={run} mayLearn={mayLearn} />}
    </Modal>
  );
}

export function RunDetails({ projectId, run, mayLearn }: {
  projectId: string; run: Details; mayLearn: boolean;
}) {
  const [stopping, setStopping] = useState(false);
  const cancel = useAct(
    async () => dataOf(await client.POST("/api/runs/{run_id}/cancel", { params: { path: { run_id: run.id } } })),
    { stale: [["project", projectId, "runs"], ["project", projectId, "learning"]], onDone: () => showDone("The run is being stopped.") },
  );
  return (
    <Stack>
      <Group justify="space-between" align="flex-start">
        <RunState run={run} />
        {mayLearn && isUnderWay(run) && (
          <Button variant="default" disabled={run.stop_wanted} loading={cancel.isPending} onClick={() => setStopping(true)}>
            Stop it
          </Button>
        )}
      </Group>
      {run.verdict === "leaked" && (
        <Alert color="red">The candidate has learnt from somebody who judges it: its numbers say nothing.</Alert>
      )}
      {run.judgement && (
        <JudgementTable judgement={run.judgement} before={run.opponent?.name ?? "before"} after={run.candidate?.name ?? "after"} />
      )}
      {run.curve.length > 0 ? (
        <Group align="flex-start">
          <LinePlot title="Loss by step" xLabel="step" yLabel="loss" points={curveOf(run, "loss")} />
          <LinePlot title="Dice by step" xLabel="step" yLabel="Dice" points={curveOf(run, "dice")} yBetween={[0, 1]} color="var(--mantine-color-blue-5)" />
        </Group>
      ) : (
        <Text size="sm" c="dimmed">The curve appears as the run learns.</Text>
      )}
      <Table w="auto" withRowBorders={false} verticalSpacing={2}>
        <Table.Tbody>
          <Fact name="From">{run.parent.name}</Fact>
          <Fact name="Learnt from">{partInWords(run.train)}</Fact>
          <Fact name="Judged on">{partInWords(run.held_out)}</Fact>
          {run.near_duplicates > 0 && <Fact name="Near duplicates between the parts">{run.near_duplicates}</Fact>}
          {run.snapshot_digest && <Fact name="Digest of the data"><Code>{run.snapshot_digest}</Code></Fact>}
          {Object.entries(run.recipe).map(([name, value]) => (
            <Fact key={name} name={name.replaceAll("_", " ")}>{typeof value === "string" ? value : JSON.stringify(value)}</Fact>
          ))}
        </Table.Tbody>
      </Table>
      {run.log.length > 0 && (
        <Stack gap={4}>
          <Group gap="md">
            <Text fw={600} size="sm">Log</Text>
            {run.step > 0 && <Anchor href={`/api/runs/${run.id}/log`} download size="sm">All of it, with curves for TensorBoard</Anchor>}
          </Group>
          <Code block mah={220} style={{ overflow: "auto" }}>
            {run.log.map(([when, sentence]) => `${new Date(when ?? "").toLocaleString()}  ${sentence ?? ""}`).join("\n")}
          </Code>
        </Stack>
      )}
      <Confirm
        opened={stopping} title={`Stop run ${run.number}?`} action="Stop it" stay="Let it go on"
        onConfirm={() => cancel.mutate(undefined)} onClose={() => setStopping(false)}
      >
        What it has learnt so far is not used. Another run may begin after it.
      </Confirm>
    </Stack>
  );
}

function Fact({ name, children }: { name: string; children: ReactNode }) {
  return (
    <Table.Tr>
      <Table.Td c="dimmed" pl={0}>{name}</Table.Td>
      <Table.Td>{children}</Table.Td>
    </Table.Tr>
  );
}
