/** The structures to delineate. */
import { ActionIcon, Button, ColorInput, ColorSwatch, Group, Stack, Table, Text, TextInput } from "@mantine/core";
import { IconCheck, IconPencil, IconPlus, IconTrash, IconX } from "@tabler/icons-react";
import { useState, type SyntheticEvent } from "react";
import { client, dataOf, throwRefusal, type Schemas } from "../api/client";
import { useAct } from "../app/useAct";
import { Empty } from "./Empty";
import { LABEL_COLORS } from "./labelColors";
import type { Project } from "./ProjectPage";

type Label = Schemas["LabelOut"];

export function LabelsTab({ project }: { project: Project }) {
  const mayManage = project.actions.includes("manage");
  return (
    <Stack>
      {project.labels.length === 0 && (
        <Empty title="No labels yet">
          A label is a structure to delineate, such as liver or left ventricle.{" "}
          {mayManage ? "Add the first one below; annotators can then begin." : "A project lead adds them."}
        </Empty>
      )}
      {project.labels.length > 0 && (
        <Table maw={720}>
          <Table.Thead>
            <Table.Tr>
              <Table.Th w={60}>Value</Table.Th><Table.Th>Name</Table.Th><Table.Th w={160}>Colour</Table.Th><Table.Th w={90} />
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {project.labels.map((label) => (
              <LabelRow key={label.id} projectId={project.id} label={label} mayManage={mayManage} />
            ))}
          </Table.Tbody>
        </Table>
      )}
      {mayManage && <AddLabel project={project} />}
    </Stack>
  );
}

function LabelRow({ projectId, label, mayManage }: { projectId: string; label: Label; mayManage: boolean }) {
  const [edited, setEdited] = useState<{ name: string; color: string }>();
  const stale = [["project", projectId]];
  const params = { path: { label_id: label.id } };
  const change = useAct(
    async (body: { name: string; color: string }) =>
      dataOf(await client.PATCH("/api/labels/{label_id}", { params, body })),
    { stale, onDone: () => setEdited(undefined) },
  );
  const remove = useAct(
    async () => throwRefusal(await client.DELETE("/api/labels/{label_id}", { params })),
    { stale },
  );
  return (
    <Table.Tr>
      <Table.Td>{label.value}</Table.Td>
      <Table.Td>
        {edited ? (
          <TextInput
            size="xs" aria-label="Name" value={edited.name} maxLength={64}
            onChange={(event) => setEdited({ ...edited, name: event.currentTarget.value })}
          />
        ) : label.name}
      </Table.Td>
      <Table.Td>
        {edited ? (
          <ColorInput
            size="xs" aria-label="Colour" value={edited.color} swatches={[...LABEL_COLORS]}
            onChange={(color) => setEdited({ ...edited, color })}
          />
        ) : (
          <Group gap="xs"><ColorSwatch color={label.color} size={16} /><Text size="sm" c="dimmed">{label.color}</Text></Group>
        )}
      </Table.Td>
      <Table.Td>
        {mayManage && (
          <Group gap={4} justify="flex-end" wrap="nowrap">
            {edited ? (
              <>
                <ActionIcon variant="light" aria-label="Save" loading={change.isPending} onClick={() => change.mutate(edited)}>
                  <IconCheck size={16} />
                </ActionIcon>
                <ActionIcon variant="subtle" color="gray" aria-label="Cancel" onClick={() => setEdited(undefined)}>
                  <IconX size={16} />
                </ActionIcon>
              </>
            ) : (
              <>
                <ActionIcon
                  variant="subtle" color="gray" aria-label={`Change ${label.name}`}
                  onClick={() => setEdited({ name: label.name, color: label.color })}
                >
                  <IconPencil size={16} />
                </ActionIcon>
                <ActionIcon variant="subtle" color="red" aria-label={`Remove ${label.name}`} onClick={() => remove.mutate(undefined)}>
                  <IconTrash size={16} />
                </ActionIcon>
              </>
            )}
          </Group>
        )}
      </Table.Td>
    </Table.Tr>
  );
}

function AddLabel({ project }: { project: Project }) {
  const nextColor = LABEL_COLORS[project.labels.length % LABEL_COLORS.length] ?? "#2bb8a3";
  const [name, setName] = useState("");
  const [color, setColor] = useState<string>();
  const add = useAct(
    async () =>
      dataOf(
        await client.POST("/api/projects/{project_id}/labels", {
          params: { path: { project_id: project.id } },
          body: { name, color: color ?? nextColor },
        }),
      ),
    {
      stale: [["project", project.id]],
      onDone: () => {
        setName("");
        setColor(undefined);
      },
    },
  );
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    add.mutate(undefined);
  };
  return (
    <form onSubmit={submit}>
      <Group align="flex-end">
        <TextInput
          label="New label" placeholder="liver" required maxLength={64}
          value={name} onChange={(event) => setName(event.currentTarget.value)}
        />
        <ColorInput label="Colour" value={color ?? nextColor} onChange={setColor} swatches={[...LABEL_COLORS]} w={150} />
        <Button type="submit" leftSection={<IconPlus size={16} />} loading={add.isPending}>Add label</Button>
      </Group>
    </form>
  );
}
