/** Slices to be delineated next, in an order that a lead has chosen. */
import { Alert, Anchor, Badge, Button, Collapse, Group, Loader, Paper, Progress, Select, SimpleGrid, Stack, Text, UnstyledButton } from "@mantine/core";
import { IconChevronDown, IconChevronRight } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "react-router";
import { client, dataOf, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { useAct } from "../app/useAct";
import { isUnderWay, percent } from "../learning/progress";
import type { Project } from "./ProjectPage";
import { addressOf, DEFAULT_STRATEGY, STRATEGIES, undoneFirst, type RankedSlice, type Strategy } from "./suggestions";

export function SuggestedNext({ project }: { project: Project }) {
  const [isOpen, setOpen] = useState(false);
  return (
    <Paper withBorder p="sm" data-testid="suggested-next">
      <UnstyledButton onClick={() => setOpen(!isOpen)} aria-expanded={isOpen}>
        <Group gap="xs">
          {isOpen ? <IconChevronDown size={16} /> : <IconChevronRight size={16} />}
          <Text fw={600} size="sm">Suggested next</Text>
          <Text size="sm" c="dimmed">slices in an order that a lead has chosen</Text>
        </Group>
      </UnstyledButton>
      {/* Asked for only once it is looked at. */}
      <Collapse expanded={isOpen}>{isOpen && <Suggestions project={project} />}</Collapse>
    </Paper>
  );
}

export function Suggestions({ project }: { project: Project }) {
  const rankings = useQuery(queries.rankings(project.id));
  const [strategy, setStrategy] = useState<Strategy>(DEFAULT_STRATEGY);
  const request = useAct(
    async (wanted: Strategy) =>
      dataOf(
        await client.POST("/api/projects/{project_id}/rankings", {
          params: { path: { project_id: project.id } }, body: { strategy: wanted },
        }),
      ),
    { stale: [queries.rankings(project.id).queryKey] },
  );
  const newest = rankings.data?.[0];
  const mayLearn = project.actions.includes("learn");
  const isBusy = newest !== undefined && isUnderWay(newest);
  return (
    <Stack mt="sm">
      {mayLearn && <Group align="flex-start">
        <Select
          label="What to look for" w={280} allowDeselect={false} value={strategy}
          data={STRATEGIES.map(({ value, label }) => ({ value, label }))} onChange={(value) => value && setStrategy(value)}
          description={STRATEGIES.find(({ value }) => value === strategy)?.sentence} inputWrapperOrder={["label", "input", "description"]}
        />
        <Button mt={25} loading={request.isPending} disabled={isBusy} onClick={() => request.mutate(strategy)}>Suggest</Button>
      </Group>}
      {rankings.isPending && <Loader aria-label="Loading suggestions" />}
      {rankings.error && <Text c="red" role="alert">{rankings.error.message}</Text>}
      {rankings.data?.length === 0 && (
        <Text size="sm" c="dimmed">
          Nothing has been suggested yet. {mayLearn ? "Choose what to look for, and press Suggest." : "A lead of the project asks for suggestions."}
        </Text>
      )}
      {newest && <Outcome projectId={project.id} ranking={newest} />}
    </Stack>
  );
}

function Outcome({ projectId, ranking }: { projectId: string; ranking: Schemas["RankingOut"] }) {
  if (ranking.state === "failed") return <Alert color="red">{ranking.error_message}</Alert>;
  if (isUnderWay(ranking)) {
    return (
      <Stack gap={4}>
        <Progress value={percent(ranking.scored, ranking.total)} animated aria-label="Slices looked at" />
        <Text size="xs" c="dimmed">
          {ranking.total > 0 ? `${ranking.scored} of ${ranking.total} slices looked at` : "Waits for its turn."}
        </Text>
      </Stack>
    );
  }
  return <Slices projectId={projectId} ranking={ranking} />;
}

function Slices({ projectId, ranking }: { projectId: string; ranking: Schemas["RankingOut"] }) {
  const { data: slices, error } = useQuery(queries.rankedSlices(projectId, ranking.id));
  if (error) return <Text c="red" role="alert">{error.message}</Text>;
  if (slices === undefined) return <Loader aria-label="Loading suggested slices" />;
  return (
    <Stack gap="xs">
      <Text size="xs" c="dimmed">
        {STRATEGIES.find(({ value }) => value === ranking.strategy)?.label}, by {ranking.model.name}, {new Date(ranking.created_at).toLocaleString()}
      </Text>
      {slices.length === 0 && <Text size="sm" c="dimmed">No slice of an open task is left to suggest.</Text>}
      <SimpleGrid cols={{ base: 2, sm: 4, lg: 6 }} spacing="sm">
        {undoneFirst(slices).map((slice) => <Suggested key={slice.slice_id} slice={slice} />)}
      </SimpleGrid>
    </Stack>
  );
}

function Suggested({ slice }: { slice: RankedSlice }) {
  return (
    <Stack gap={4} data-testid="suggested-slice" opacity={slice.done ? 0.5 : 1}>
      <img
        src={slice.picture} alt={`Slice ${slice.index + 1} of ${slice.subject}`} loading="lazy"
        style={{ width: "100%", aspectRatio: 1, objectFit: "contain", background: "black" }}
      />
      <Text size="xs"><span style={{ fontFamily: "monospace" }}>{slice.subject}</span>, slice {slice.index + 1}</Text>
      <Text size="xs" c="dimmed">{slice.reason}</Text>
      {slice.done && <Badge size="sm" variant="light" color="teal">done</Badge>}
      {!slice.done && <Anchor component={Link} to={addressOf(slice)} size="xs">Delineate it</Anchor>}
    </Stack>
  );
}
