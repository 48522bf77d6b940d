/** The project's subjects: two that are one patient become one, and one is erased for good. */
import {
  ActionIcon, Button, Checkbox, Group, Loader, Modal, Progress, Select, Stack, Table, Text, TextInput, Tooltip,
} from "@mantine/core";
import { IconArrowMerge, IconEraser, IconSearch } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { client, dataOf } from "../api/client";
import { queries } from "../api/queries";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { Empty } from "./Empty";
import type { Project } from "./ProjectPage";
import { holdingsOf, isLeaving, matching, type Subject } from "./subjectWords";

export function SubjectsTab({ project }: { project: Project }) {
  const subjects = useQuery(queries.subjects(project.id));
  const [search, setSearch] = useState("");
  const [chosen, setChosen] = useState<ReadonlySet<number>>(new Set());
  const [merging, setMerging] = useState(false);
  const [erasing, setErasing] = useState<Subject>();

  if (subjects.isPending) return <Loader aria-label="Loading subjects" />;
  if (subjects.error) return <Text c="red">{subjects.error.message}</Text>;
  if (subjects.data.length === 0) {
    return (
      <Empty title="No subjects yet">
        A subject is a patient under a pseudonym. They appear here with the studies that are uploaded: every patient that a
        file or a subjects.csv names, and every folder of images that name nobody.
      </Empty>
    );
  }
  const shown = matching(subjects.data, search);
  // Only what is still there and may be merged: a subject may have gone since it was chosen.
  const selected = subjects.data.filter((subject) => chosen.has(subject.id) && !isLeaving(subject));
  const choose = (id: number, isChosen: boolean) => {
    const next = new Set(chosen);
    if (isChosen) next.add(id);
    else next.delete(id);
    setChosen(next);
  };
  return (
    <Stack>
      <Group justify="space-between">
        <TextInput
          aria-label="Search subjects" placeholder="Find a subject" leftSection={<IconSearch size={16} />}
          value={search} onChange={(event) => setSearch(event.currentTarget.value)}
        />
        <Group gap="sm">
          {selected.length < 2 && subjects.data.length > 1 && (
            <Text size="sm" c="dimmed">Tick those that are one patient.</Text>
          )}
          <Button
            variant="default" leftSection={<IconArrowMerge size={16} />}
            disabled={selected.length < 2} onClick={() => setMerging(true)}
          >
            Merge…
          </Button>
        </Group>
      </Group>
      {shown.length === 0 && <Text c="dimmed" size="sm">No subject is called so.</Text>}
      {shown.length > 0 && (
        <Table.ScrollContainer minWidth={820}>
          <Table highlightOnHover verticalSpacing="xs">
            <Table.Thead>
              <Table.Tr>
                <Table.Th w={40} />
                <Table.Th>Subject</Table.Th>
                <Table.Th ta="right">Studies</Table.Th>
                <Table.Th ta="right">Series</Table.Th>
                <Table.Th ta="right">Slices</Table.Th>
                <Table.Th ta="right">Accepted masks</Table.Th>
                <Table.Th>Added</Table.Th>
                <Table.Th w={180} />
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {shown.map((subject) => (
                <Table.Tr key={subject.id} data-testid="subject-row">
                  <Table.Td>
                    <Checkbox
                      aria-label={`Choose ${subject.pseudonym}`} disabled={isLeaving(subject)}
                      checked={selected.includes(subject)}
                      onChange={(event) => choose(subject.id, event.currentTarget.checked)}
                    />
                  </Table.Td>
                  <Table.Td>
                    <Text ff="monospace" size="sm">{subject.pseudonym}</Text>
                    {subject.aliases.length > 0 && (
                      <Text size="xs" c="dimmed">also <span style={{ fontFamily: "monospace" }}>{subject.aliases.join(", ")}</span></Text>
                    )}
                  </Table.Td>
                  <Table.Td ta="right">{subject.studies}</Table.Td>
                  <Table.Td ta="right">{subject.series}</Table.Td>
                  <Table.Td ta="right">{subject.slices}</Table.Td>
                  <Table.Td ta="right">{subject.accepted_masks}</Table.Td>
                  <Table.Td>{subject.added_at === null ? "" : new Date(subject.added_at).toLocaleDateString()}</Table.Td>
                  <Table.Td>
                    {isLeaving(subject) ? <Leaving subject={subject} /> : (
                      <Group justify="flex-end">
                        <Tooltip label={`Erase ${subject.pseudonym}…`}>
                          <ActionIcon
                            variant="subtle" color="red" aria-label={`Erase ${subject.pseudonym}`}
                            onClick={() => setErasing(subject)}
                          >
                            <IconEraser size={16} />
                          </ActionIcon>
                        </Tooltip>
                      </Group>
                    )}
                  </Table.Td>
                </Table.Tr>
              ))}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      {merging && selected.length > 1 && (
        <MergeDialog
          projectId={project.id} subjects={selected} onClose={() => setMerging(false)}
          onDone={() => setChosen(new Set())}
        />
      )}
      {erasing && <EraseDialog projectId={project.id} subject={erasing} onClose={() => setErasing(undefined)} />}
    </Stack>
  );
}

function Leaving({ subject: { erasure } }: { subject: Subject }) {
  if (erasure === null) return null;
  return (
    <Stack gap={4} data-testid="erasing">
      <Progress
        value={(100 * erasure.studies_done) / Math.max(1, erasure.studies_total)} size="sm" color="red" animated
        aria-label="Erased studies"
      />
      <Text size="xs" c="dimmed">being erased, {erasure.studies_done} of {erasure.studies_total}</Text>
    </Stack>
  );
}

function MergeDialog({ projectId, subjects, onClose, onDone }: {
  projectId: string; subjects: readonly Subject[]; onClose: () => void; onDone: () => void;
}) {
  const [into, setInto] = useState(String(subjects[0]?.id));
  const merge = useAct(
    async () =>
      dataOf(
        await client.POST("/api/subjects/{subject_id}/merge", {
          params: { path: { subject_id: Number(into) } },
          body: { others: subjects.map(({ id }) => id).filter((id) => String(id) !== into) },
        }),
      ),
    {
      stale: [["project", projectId]],
      onDone: ({ pseudonym }) => {
        showDone(`They are one subject now: ${pseudonym}.`);
        onDone();
        onClose();
      },
    },
  );
  return (
    <Modal opened onClose={onClose} title={`Merge ${subjects.length} subjects?`}>
      <Stack>
        <Select
          label="Pseudonym of the one that remains" allowDeselect={false} value={into}
          data={subjects.map(({ id, pseudonym }) => ({ value: String(id), label: pseudonym }))}
          onChange={(value) => value && setInto(value)}
        />
        <Text size="sm">
          It will have all of it: {holdingsOf(subjects)}. What is uploaded under the other pseudonyms later goes to it, too.
          This cannot be undone.
        </Text>
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose} data-autofocus>Cancel</Button>
          <Button color="red" loading={merge.isPending} onClick={() => merge.mutate(undefined)}>Merge for good</Button>
        </Group>
      </Stack>
    </Modal>
  );
}

function EraseDialog({ projectId, subject, onClose }: { projectId: string; subject: Subject; onClose: () => void }) {
  const [typed, setTyped] = useState("");
  const erase = useAct(
    async () =>
      dataOf(
        await client.POST("/api/subjects/{subject_id}/erase", {
          params: { path: { subject_id: subject.id } },
          body: { pseudonym: typed.trim() },
        }),
      ),
    {
      stale: [["project", projectId]],
      onDone: () => {
        showDone(`${subject.pseudonym} is being erased.`);
        onClose();
      },
    },
  );
  return (
    <Modal opened onClose={onClose} title={`Erase ${subject.pseudonym}?`}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          erase.mutate(undefined);
        }}
      >
        <Stack>
          <Text size="sm">
            All that there is of this subject goes: {holdingsOf([subject])}, every draft, and the exports that hold any of it.
            It is not taken in again, and a backup that is restored does not bring it back. This cannot be undone.
          </Text>
          <TextInput
            label="To go on, type the pseudonym" placeholder={subject.pseudonym} data-autofocus autoComplete="off"
            value={typed} onChange={(event) => setTyped(event.currentTarget.value)}
          />
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>Cancel</Button>
            <Button type="submit" color="red" loading={erase.isPending} disabled={typed.trim() !== subject.pseudonym}>
              Erase for good
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
