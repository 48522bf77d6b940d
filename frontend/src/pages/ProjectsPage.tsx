/** One's projects, and making a new one. */
import {
  Alert, Badge, Button, Card, Checkbox, Group, Loader, Modal, SimpleGrid, Stack, Text, TextInput, Title,
} from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState, type SyntheticEvent } from "react";
import { Link, useNavigate } from "react-router";
import { client, dataOf } from "../api/client";
import { queries } from "../api/queries";
import { useAct } from "../app/useAct";
import { usePageTitle } from "../app/usePageTitle";
import { Empty } from "./Empty";
import { LABEL_COLORS } from "./labelColors";
import { KEEP_WARNING } from "./PrivacySection";
import { counted } from "./words";

export function ProjectsPage() {
  usePageTitle("Projects");
  const projects = useQuery(queries.projects());
  const [creating, setCreating] = useState(false);
  const create = <Button leftSection={<IconPlus size={16} />} onClick={() => setCreating(true)}>New project</Button>;
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={1} size="h2">Projects</Title>
        {create}
      </Group>
      {projects.isPending && <Loader aria-label="Loading projects" />}
      {projects.data?.length === 0 && (
        <Empty title="No projects yet" action={create}>
          A project holds studies, the labels to delineate, and the people who do it. Create one, or ask a project
          lead to add you to theirs.
        </Empty>
      )}
      <SimpleGrid cols={{ base: 1, sm: 2, lg: 3 }}>
        {projects.data?.map((project) => (
          <Card key={project.id} component={Link} to={`/projects/${project.id}`} withBorder>
            <Group justify="space-between" wrap="nowrap">
              <Text fw={600} truncate>{project.name}</Text>
              <Badge variant="light" color="gray">{project.role}</Badge>
            </Group>
            <Text size="sm" c="dimmed" mt="xs">
              {counted(project.labels, "label")} · {counted(project.members, "member")}
            </Text>
          </Card>
        ))}
      </SimpleGrid>
      <CreateDialog opened={creating} onClose={() => setCreating(false)} />
    </Stack>
  );
}

function CreateDialog({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const navigate = useNavigate();
  const [name, setName] = useState("");
  const [labels, setLabels] = useState("");
  const [keepsIdentities, setKeepsIdentities] = useState(false);
  const create = useAct(
    async () => {
      const names = labels.split(",").map((label) => label.trim()).filter((label) => label !== "");
      const body = {
        name,
        labels: names.map((label, index) => ({ name: label, color: colorAt(index) })),
        identities: keepsIdentities ? "kept" as const : "removed" as const,
      };
      return dataOf(await client.POST("/api/projects", { body }));
    },
    { stale: [["projects"]], onDone: ({ id }) => void navigate(`/projects/${id}`) },
  );
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    create.mutate(undefined);
  };
  return (
    <Modal opened={opened} onClose={onClose} title="New project">
      <form onSubmit={submit}>
        <Stack>
          <TextInput
            label="Name" required maxLength={120} data-autofocus
            value={name} onChange={(event) => setName(event.currentTarget.value)}
          />
          <TextInput
            label="Labels" description="The structures to delineate, separated by commas; you can add more later."
            placeholder="liver, spleen, left kidney"
            value={labels} onChange={(event) => setLabels(event.currentTarget.value)}
          />
          <Checkbox
            label="Keep patients' identities" checked={keepsIdentities}
            description="Otherwise they are removed from everything that is uploaded. More is chosen in the project's Settings, before the first upload: dates, and escrow, the way back to the patients."
            onChange={(event) => setKeepsIdentities(event.currentTarget.checked)}
          />
          {keepsIdentities && <Alert color="red" title="Patients can be identified">{KEEP_WARNING}</Alert>}
          <Group justify="flex-end">
            <Button variant="default" onClick={onClose}>Cancel</Button>
            <Button type="submit" loading={create.isPending}>Create project</Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}

function colorAt(index: number): string {
  return LABEL_COLORS[index % LABEL_COLORS.length] ?? "#2bb8a3";
}
