/** Which subjects are learnt from, and which judge; a part is given once and for ever. */
import { Badge, Button, Checkbox, Group, Loader, ScrollArea, Stack, Table, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, dataOf, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { Confirm } from "../pages/Confirm";
import { Empty } from "../pages/Empty";
import { counted } from "../pages/words";
import { partInWords } from "./progress";

type Part = Schemas["Part"];

const PARTS: Readonly<Record<Part, { text: string; color: string }>> = {
  train: { text: "learnt from", color: "teal" },
  held_out: { text: "held out", color: "blue" },
};

export function PartsSection({ projectId, mayLearn }: { projectId: string; mayLearn: boolean }) {
  const subjects = useQuery(queries.parts(projectId));
  const { data: learning } = useQuery(queries.learning(projectId));
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [giving, setGiving] = useState<Part>();
  const give = useAct(
    async (body: Schemas["PartIn"]) =>
      dataOf(await client.POST("/api/projects/{project_id}/learning/parts", { params: { path: { project_id: projectId } }, body })),
    {
      stale: [["project", projectId, "learning"]],
      onDone: (_, { pseudonyms, part }) => {
        showDone(`${counted(pseudonyms.length, "subject")}: ${PARTS[part].text}.`);
        setChosen(new Set());
      },
    },
  );
  if (subjects.isPending) return <Loader aria-label="Loading parts" />;
  if (subjects.error) return <Text c="red" role="alert">{subjects.error.message}</Text>;
  const open = subjects.data.filter(({ part }) => part === null);
  // Somebody else may have given a part meanwhile.
  const pseudonyms = open.flatMap(({ pseudonym }) => (chosen.has(pseudonym) ? [pseudonym] : []));
  const choose = (pseudonym: string, isChosen: boolean) => {
    const next = new Set(chosen);
    if (isChosen) next.add(pseudonym);
    else next.delete(pseudonym);
    setChosen(next);
  };
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={2} size="h4">Held-out subjects</Title>
        {mayLearn && open.length > 0 && (
          <Group gap="xs">
            {pseudonyms.length === 0 && <Text size="sm" c="dimmed">Tick subjects without a part.</Text>}
            <Button variant="default" disabled={pseudonyms.length === 0} loading={give.isPending} onClick={() => setGiving("train")}>
              Learn from them…
            </Button>
            <Button variant="default" disabled={pseudonyms.length === 0} loading={give.isPending} onClick={() => setGiving("held_out")}>
              Hold them out…
            </Button>
          </Group>
        )}
      </Group>
      {learning && (
        <Text size="sm" c="dimmed">
          Learnt from: {partInWords(learning.train)}. Held out: {partInWords(learning.held_out)}.
          {learning.unassigned_subjects > 0 && ` ${counted(learning.unassigned_subjects, "subject")} with masks will be given a part by the next run.`}
        </Text>
      )}
      {subjects.data.length === 0 ? (
        <Empty title="No subjects yet">
          A run divides the subjects into those that are learnt from and those that judge the outcome. Nobody is ever in both.
        </Empty>
      ) : (
        <ScrollArea.Autosize mah={360}>
          <Table verticalSpacing={4} stickyHeader>
            <Table.Thead>
              <Table.Tr>
                {mayLearn && <Table.Th w={40} />}
                <Table.Th>Subject</Table.Th><Table.Th ta="right">Accepted masks</Table.Th><Table.Th>Part</Table.Th>
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {subjects.data.map(({ pseudonym, part, masks }) => (
                <Table.Tr key={pseudonym} data-testid="part-row">
                  {mayLearn && (
                    <Table.Td>
                      {part === null && (
                        <Checkbox
                          aria-label={`Choose ${pseudonym}`} checked={chosen.has(pseudonym)}
                          onChange={(event) => choose(pseudonym, event.currentTarget.checked)}
                        />
                      )}
                    </Table.Td>
                  )}
                  <Table.Td><Text ff="monospace" size="sm">{pseudonym}</Text></Table.Td>
                  <Table.Td ta="right">{masks}</Table.Td>
                  <Table.Td>
                    {part === null
                      ? <Text size="sm" c="dimmed">none yet</Text>
                      : <Badge variant="light" color={PARTS[part].color}>{PARTS[part].text}</Badge>}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </ScrollArea.Autosize>
      )}
      <Confirm
        opened={giving !== undefined} action={giving === "train" ? "Learn from them for ever" : "Hold them out for ever"}
        title={giving === "train" ? `Learn from ${counted(pseudonyms.length, "subject")}?` : `Hold out ${counted(pseudonyms.length, "subject")}?`}
        onConfirm={() => giving && give.mutate({ pseudonyms, part: giving })} onClose={() => setGiving(undefined)}
      >
        {giving === "train"
          ? "Models may learn from their masks, and never are they judged by them."
          : "Their masks judge models, and no model of this project ever learns from them."}{" "}
        This is for ever: a part cannot be changed or taken back.
      </Confirm>
    </Stack>
  );
}
