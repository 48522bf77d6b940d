/** The project's name, and what it keeps of its patients. */
import { Button, Divider, Group, Stack, TextInput } from "@mantine/core";
import { useState, type SyntheticEvent } from "react";
import { client, dataOf } from "../api/client";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { EscrowSection } from "./EscrowSection";
import { PrivacySection } from "./PrivacySection";
import type { Project } from "./ProjectPage";

export function SettingsTab({ project }: { project: Project }) {
  const [name, setName] = useState(project.name);
  const rename = useAct(
    async () =>
      dataOf(
        await client.PATCH("/api/projects/{project_id}", {
          params: { path: { project_id: project.id } },
          body: { name },
        }),
      ),
    { stale: [["project", project.id], ["projects"]], onDone: () => showDone("The project has been renamed.") },
  );
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    rename.mutate(undefined);
  };
  return (
    <Stack gap="xl">
      <form onSubmit={submit}>
        <Group align="flex-end">
          <TextInput
            label="Name" required maxLength={120} w={360}
            value={name} onChange={(event) => setName(event.currentTarget.value)}
          />
          <Button type="submit" loading={rename.isPending} disabled={name === project.name}>Rename</Button>
        </Group>
      </form>
      <Divider />
      <PrivacySection project={project} />
      <Divider />
      <EscrowSection project={project} />
    </Stack>
  );
}
