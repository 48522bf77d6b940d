/** The project's models, the newest first, and which of them answers. */
import { Badge, Button, Group, Loader, Modal, Paper, Progress, ScrollArea, Select, Stack, Text, Timeline, Title } from "@mantine/core";
import { IconArrowBackUp, IconDownload, IconFileText, IconScale } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, dataOf, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { Confirm } from "../pages/Confirm";
import { Empty } from "../pages/Empty";
import { slicesInWords } from "../pages/words";
import { percent, periodInWords } from "./progress";
import {
  changeTo, lastTimeOf, lineageOf, marksOf, pairToCompare, timelineOf, underPreparation, type ProjectModel,
} from "./timeline";
import { VerdictBadge } from "./Verdict";

interface Props {
  projectId: string;
  mayLearn: boolean;
  onCompared: (comparisonId: string) => void;
}

export function ModelsSection({ projectId, mayLearn, onCompared }: Props) {
  const models = useQuery(queries.projectModels(projectId));
  const promotions = useQuery(queries.promotions(projectId));
  const [wanted, setWanted] = useState<ProjectModel>();
  const [rollingBack, setRollingBack] = useState(false);
  const [carded, setCarded] = useState<ProjectModel>();
  const [comparing, setComparing] = useState(false);
  const change = useAct(
    async (body: Schemas["PromotionIn"]) =>
      dataOf(await client.POST("/api/projects/{project_id}/promotions", { params: { path: { project_id: projectId } }, body })),
    {
      stale: [["project", projectId]],
      onDone: ({ model, state }) =>
        showDone(state === "done" ? `${model.name} answers from now on.` : `${model.name} answers as soon as the open tasks are prepared.`),
    },
  );
  if (models.isPending) return <Loader aria-label="Loading models" />;
  if (models.error) return <Text c="red" role="alert">{models.error.message}</Text>;

  const preparing = underPreparation(promotions.data ?? []);
  const target = models.data.find(({ is_roll_back }) => is_roll_back);
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={2} size="h4">Models</Title>
        {mayLearn && (
          <Group gap="xs">
            <Button
              variant="default" leftSection={<IconScale size={16} />} disabled={models.data.length < 2}
              onClick={() => setComparing(true)}
            >
              Compare…
            </Button>
            <Button
              variant="default" leftSection={<IconArrowBackUp size={16} />} disabled={target === undefined}
              loading={change.isPending && change.variables.change === "roll_back"} onClick={() => setRollingBack(true)}
            >
              Roll back
            </Button>
          </Group>
        )}
      </Group>
      {preparing && <Preparing promotion={preparing} />}
      {models.data.length === 0 ? (
        <Empty title="No models yet">
          An administrator adds the first one to the installation. What the project learns from its own accepted masks appears
          here as further ones.
        </Empty>
      ) : (
        <Timeline bulletSize={14} lineWidth={2} active={-1}>
          {timelineOf(models.data).map((model) => (
            <Timeline.Item
              key={model.digest} data-testid="project-model" color={model.is_active ? "teal" : "gray"}
              title={<ModelTitle model={model} lineage={lineageOf(model, models.data)} />}
            >
              <ModelFacts model={model} />
              <Group gap="xs" mt={6}>
                {mayLearn && !model.is_active && preparing?.model.digest !== model.digest && (
                  <Button
                    size="compact-sm" variant="light" onClick={() => setWanted(model)}
                    loading={change.isPending && change.variables.digest === model.digest}
                  >
                    Let it answer
                  </Button>
                )}
                <Button
                  size="compact-sm" variant="subtle" leftSection={<IconFileText size={14} />} onClick={() => setCarded(model)}
                >
                  Card
                </Button>
                {mayLearn && (
                  <Button
                    component="a" href={`/api/projects/${projectId}/models/${model.digest}/file`} download
                    size="compact-sm" variant="subtle" leftSection={<IconDownload size={14} />}
                  >
                    Download
                  </Button>
                )}
              </Group>
            </Timeline.Item>
          ))}
        </Timeline>
      )}
      <Confirm
        opened={wanted !== undefined} title={`Let ${wanted?.name ?? "it"} answer?`} action="Let it answer"
        onConfirm={() => wanted && change.mutate({ change: changeTo(wanted), digest: wanted.digest })}
        onClose={() => setWanted(undefined)}
      >
        {wanted?.verdict === "better" ? "" : "It has not been shown to be better than the one that answers now. "}
        The slices of open tasks are prepared for it first; then it answers. Sessions in progress keep their model to their end,
        and accepted masks stay as they are.
      </Confirm>
      <Confirm
        opened={rollingBack && target !== undefined} title={`Roll back to ${target?.name ?? "the one before"}?`} action="Roll back"
        onConfirm={() => change.mutate({ change: "roll_back" })} onClose={() => setRollingBack(false)}
      >
        It answered before the present one. The slices of open tasks are prepared for it first where they are not any more; then it
        answers. Sessions in progress keep their model to their end, and accepted masks stay as they are.
      </Confirm>
      {carded && <CardDialog projectId={projectId} model={carded} onClose={() => setCarded(undefined)} />}
      {comparing && (
        <CompareDialog projectId={projectId} models={models.data} onCompared={onCompared} onClose={() => setComparing(false)} />
      )}
    </Stack>
  );
}

function ModelTitle({ model, lineage }: { model: ProjectModel; lineage: string | null }) {
  return (
    <Group gap="xs">
      <Text fw={600}>{model.name}</Text>
      {lineage !== null && <Text size="sm" c="dimmed">{lineage}</Text>}
      {model.verdict !== null && <VerdictBadge verdict={model.verdict} />}
      {marksOf(model).map(({ text, color }) => <Badge key={text} variant="outline" color={color}>{text}</Badge>)}
    </Group>
  );
}

function ModelFacts({ model }: { model: ProjectModel }) {
  const { dice } = model.metrics;
  const last = lastTimeOf(model);
  return (
    <Text size="sm" c="dimmed">
      Made {new Date(model.created_at).toLocaleString()} · {model.variant}
      {dice !== undefined && ` · Dice ${dice.toFixed(3)} on held-out masks`}
      {last && ` · answered ${periodInWords(last)}`}
    </Text>
  );
}

function Preparing({ promotion: { model, prepared, total } }: { promotion: Schemas["PromotionOut"] }) {
  return (
    <Paper withBorder p="sm" data-testid="preparing">
      <Text size="sm" mb={6}>
        {model.name} answers as soon as the open tasks are prepared for it: {prepared} of {slicesInWords(total)}.
      </Text>
      <Progress value={percent(prepared, total)} animated aria-label="Prepared slices" />
    </Paper>
  );
}

function CardDialog({ projectId, model, onClose }: { projectId: string; model: ProjectModel; onClose: () => void }) {
  const card = useQuery(queries.modelCard(projectId, model.digest));
  return (
    <Modal opened onClose={onClose} title={`Card of ${model.name}`} size="xl" scrollAreaComponent={ScrollArea.Autosize}>
      {card.isPending && <Loader aria-label="Loading the card" />}
      {card.error && <Text c="red" role="alert">{card.error.message}</Text>}
      {card.data !== undefined && <Text component="pre" size="sm" m={0} style={{ whiteSpace: "pre-wrap" }}>{card.data}</Text>}
    </Modal>
  );
}

function CompareDialog({ projectId, models, onCompared, onClose }: {
  projectId: string; models: readonly ProjectModel[]; onCompared: (comparisonId: string) => void; onClose: () => void;
}) {
  const [pair, setPair] = useState(() => pairToCompare(models));
  const { data: runs } = useQuery(queries.runs(projectId));
  const sets = runs?.filter(({ candidate }) => candidate !== null).map(({ id, number }) => ({ value: id, label: `Run ${number}` })) ?? [];
  const [set, setSet] = useState<string | null>(null);
  const compare = useAct(
    async (body: Schemas["ComparisonIn"]) =>
      dataOf(await client.POST("/api/projects/{project_id}/comparisons", { params: { path: { project_id: projectId } }, body })),
    {
      stale: [["project", projectId, "comparisons"]],
      onDone: ({ id }) => {
        onCompared(id);
        onClose();
      },
    },
  );
  const data = timelineOf(models).map(({ digest, name }) => ({ value: digest, label: name }));
  const { first, second } = pair;
  return (
    <Modal opened onClose={onClose} title="Compare two models">
      <Stack>
        <Text size="sm">Both delineate held-out masks anew. Nobody’s work waits for it.</Text>
        <Select label="First" data={data} value={first} allowDeselect={false} onChange={(value) => setPair({ ...pair, first: value })} />
        <Select
          label="Second" data={data} value={second} allowDeselect={false} onChange={(value) => setPair({ ...pair, second: value })}
          error={first === second && first !== null ? "Choose two different models." : undefined}
        />
        {sets.length > 1 && (
          <Select
            label="On the masks held out by" data={sets} value={set ?? sets[0]?.value ?? null} allowDeselect={false} onChange={setSet}
          />
        )}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>Cancel</Button>
          <Button
            loading={compare.isPending} disabled={first === null || second === null || first === second}
            onClick={() => first !== null && second !== null && compare.mutate({ first, second, run_id: set })}
          >
            Compare
          </Button>
        </Group>
      </Stack>
    </Modal>
  );
}
