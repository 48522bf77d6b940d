/** Two models on the held-out masks: the judgement, and the masks on which they differ most. */
import { Alert, Anchor, CloseButton, Group, Loader, Paper, Progress, SimpleGrid, Stack, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { Link } from "react-router";
import type { Schemas } from "../api/client";
import { queries } from "../api/queries";
import { diceInWords } from "./judgement";
import { JudgementTable } from "./JudgementTable";
import { pathOf } from "./outlines";
import { isUnderWay, percent } from "./progress";

type Compared = Schemas["ComparedMask"];

/** Apart for colour-blind eyes, on grey images. */
const COLORS = { accepted: "#f0e442", first: "#56b4e9", second: "#d55e00" } as const;
type Whose = keyof typeof COLORS;

/** The last comparisons, to be looked at again. */
export function Comparisons({ projectId, shownId, onShown }: {
  projectId: string; shownId: string | null; onShown: (comparisonId: string) => void;
}) {
  const { data: comparisons } = useQuery(queries.comparisons(projectId));
  const others = comparisons?.filter(({ id }) => id !== shownId) ?? [];
  if (others.length === 0) return null;
  return (
    <Stack gap={2} data-testid="comparisons">
      <Text size="sm" fw={600}>Comparisons</Text>
      {others.map((comparison) => (
        <Anchor key={comparison.id} component="button" size="sm" ta="left" onClick={() => onShown(comparison.id)}>
          {comparison.second.name} against {comparison.first.name}, {new Date(comparison.created_at).toLocaleString()}
          {comparison.state === "failed" && " (failed)"}
          {isUnderWay(comparison) && " (under way)"}
        </Anchor>
      ))}
    </Stack>
  );
}

export function ComparisonSection({ projectId, comparisonId, onClose }: {
  projectId: string; comparisonId: string; onClose: () => void;
}) {
  const { data: comparison, error } = useQuery(queries.comparison(projectId, comparisonId));
  return (
    <Paper withBorder p="md" data-testid="comparison" data-state={comparison?.state}>
      <Stack>
        <Group justify="space-between">
          <Title order={2} size="h4">
            {comparison === undefined ? "Comparison" : `${comparison.second.name} against ${comparison.first.name}`}
          </Title>
          <CloseButton aria-label="Close the comparison" onClick={onClose} />
        </Group>
        {error && <Text c="red" role="alert">{error.message}</Text>}
        {comparison === undefined && !error && <Loader aria-label="Loading the comparison" />}
        {comparison !== undefined && <Outcome projectId={projectId} comparison={comparison} />}
      </Stack>
    </Paper>
  );
}

function Outcome({ projectId, comparison }: { projectId: string; comparison: Schemas["ComparisonOut"] }) {
  const { state, done, of, first, second, judgement, error_message } = comparison;
  if (state === "failed") return <Alert color="red">{error_message}</Alert>;
  if (isUnderWay(comparison)) {
    return (
      <Stack gap={4}>
        <Progress value={percent(done, of)} animated aria-label="Compared masks" />
        <Text size="xs" c="dimmed">{of > 0 ? `${done} of ${of} masks` : "Waits for its turn."}</Text>
      </Stack>
    );
  }
  return (
    <>
      {judgement && <JudgementTable judgement={judgement} before={first.name} after={second.name} />}
      <Masks projectId={projectId} comparison={comparison} />
    </>
  );
}

function Masks({ projectId, comparison }: { projectId: string; comparison: Schemas["ComparisonOut"] }) {
  const { data: masks, error } = useQuery(queries.comparedMasks(projectId, comparison.id));
  if (error) return <Text c="red" role="alert">{error.message}</Text>;
  if (masks === undefined) return <Loader aria-label="Loading masks" />;
  if (masks.length === 0) return <Text size="sm" c="dimmed">None of the compared masks is here any more.</Text>;
  const names = { accepted: "accepted", first: comparison.first.name, second: comparison.second.name };
  return (
    <Stack gap="sm">
      <Group justify="space-between">
        <Text fw={600} size="sm">Where they differ most</Text>
        <Group gap="md">
          {(Object.keys(COLORS) as Whose[]).map((whose) => (
            <Group key={whose} gap={6}>
              <span style={{ width: 18, height: 3, background: COLORS[whose] }} />
              <Text size="xs">{names[whose]}</Text>
            </Group>
          ))}
        </Group>
      </Group>
      <SimpleGrid cols={{ base: 1, xs: 2, sm: 3, lg: 4 }}>
        {masks.map((mask) => <ComparedPicture key={`${mask.slice_id} ${mask.label}`} mask={mask} names={names} />)}
      </SimpleGrid>
    </Stack>
  );
}

export function ComparedPicture({ mask, names }: { mask: Compared; names: Readonly<Record<Whose, string>> }) {
  const { height, width } = mask.accepted;
  return (
    <Stack gap={4} data-testid="compared-mask">
      <div style={{ position: "relative", lineHeight: 0 }}>
        <img src={mask.picture} alt={`A slice of ${mask.subject}`} loading="lazy" style={{ width: "100%" }} />
        <svg
          viewBox={`0 0 ${width} ${height}`} preserveAspectRatio="none" aria-hidden
          style={{ position: "absolute", inset: 0, width: "100%", height: "100%" }}
        >
          {(Object.keys(COLORS) as Whose[]).map((whose) => (
            <path key={whose} d={pathOf(mask[whose])} fill="none" stroke={COLORS[whose]} strokeWidth={1.5} vectorEffect="non-scaling-stroke" />
          ))}
        </svg>
      </div>
      <Text size="xs">{mask.label} · <span style={{ fontFamily: "monospace" }}>{mask.subject}</span></Text>
      <Text size="xs" c="dimmed">
        Dice {diceInWords(mask.first_dice)} ({names.first}), {diceInWords(mask.second_dice)} ({names.second})
      </Text>
      {mask.task_id !== null && <Anchor component={Link} to={`/tasks/${mask.task_id}?slice=${mask.index}`} size="xs">Open the slice</Anchor>}
    </Stack>
  );
}
