/** Who works in the project, and as what. */
import { ActionIcon, Button, Code, Group, Select, Stack, Table, Text, TextInput } from "@mantine/core";
import { IconUserMinus, IconUserPlus } from "@tabler/icons-react";
import { useState, type SyntheticEvent } from "react";
import { client, dataOf, throwRefusal, type Schemas } from "../api/client";
import { useAct } from "../app/useAct";
import { Confirm } from "./Confirm";
import type { Project } from "./ProjectPage";

type Role = Schemas["Role"];

const ROLES: { value: Role; label: string }[] = [
  { value: "annotator", label: "Annotator: delineates" },
  { value: "reviewer", label: "Reviewer: delineates and reviews" },
  { value: "lead", label: "Lead: everything" },
];

export function MembersTab({ project }: { project: Project }) {
  const mayManage = project.actions.includes("manage");
  const stale = [["project", project.id]];
  const [removing, setRemoving] = useState<Schemas["MemberOut"]>();
  const change = useAct(
    async ({ userId, role }: { userId: number; role: Role }) =>
      dataOf(
        await client.PATCH("/api/projects/{project_id}/members/{user_id}", {
          params: { path: { project_id: project.id, user_id: userId } },
          body: { role },
        }),
      ),
    { stale },
  );
  const remove = useAct(
    async (userId: number) =>
      throwRefusal(
        await client.DELETE("/api/projects/{project_id}/members/{user_id}", {
          params: { path: { project_id: project.id, user_id: userId } },
        }),
      ),
    { stale },
  );
  return (
    <Stack maw={820}>
      <Table>
        <Table.Thead>
          <Table.Tr><Table.Th>User</Table.Th><Table.Th>Name</Table.Th><Table.Th w={300}>Role</Table.Th><Table.Th w={50} /></Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {project.members.map((member) => (
            <Table.Tr key={member.user_id}>
              <Table.Td>{member.username}</Table.Td>
              <Table.Td><Text size="sm" c="dimmed">{member.display_name}</Text></Table.Td>
              <Table.Td>
                {mayManage ? (
                  <Select
                    size="xs" aria-label={`Role of ${member.username}`} data={ROLES} value={member.role} allowDeselect={false}
                    onChange={(role) => role && change.mutate({ userId: member.user_id, role: role })}
                  />
                ) : member.role}
              </Table.Td>
              <Table.Td>
                {mayManage && (
                  <ActionIcon
                    variant="subtle" color="red" aria-label={`Remove ${member.username}`}
                    onClick={() => setRemoving(member)}
                  >
                    <IconUserMinus size={16} />
                  </ActionIcon>
                )}
              </Table.Td>
            </Table.Tr>
          ))}
        </Table.Tbody>
      </Table>
      {mayManage && <AddMember projectId={project.id} />}
      <Confirm
        opened={removing !== undefined}
        title={`Remove ${removing?.username ?? ""} from the project?`}
        action="Remove"
        onConfirm={() => removing && remove.mutate(removing.user_id)}
        onClose={() => setRemoving(undefined)}
      >
        They lose access at once. What they have delineated and reviewed stays, under their name.
      </Confirm>
    </Stack>
  );
}

function AddMember({ projectId }: { projectId: string }) {
  const [username, setUsername] = useState("");
  const [role, setRole] = useState<Role>("annotator");
  const add = useAct(
    async () =>
      dataOf(
        await client.POST("/api/projects/{project_id}/members", {
          params: { path: { project_id: projectId } },
          body: { username, role },
        }),
      ),
    { stale: [["project", projectId]], onDone: () => setUsername("") },
  );
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    add.mutate(undefined);
  };
  return (
    <form onSubmit={submit}>
      <Group align="flex-end">
        <TextInput
          label="Add somebody" description={<>By their user name; an administrator makes accounts with <Code>delineate user add</Code>.</>}
          required value={username} onChange={(event) => setUsername(event.currentTarget.value)}
        />
        <Select
          label="Role" data={ROLES} value={role} allowDeselect={false} w={280}
          onChange={(value) => value && setRole(value)}
        />
        <Button type="submit" leftSection={<IconUserPlus size={16} />} loading={add.isPending}>Add member</Button>
      </Group>
    </form>
  );
}
