/** Escrow: identities sealed for whoever holds a file that is given away once. */
import { Badge, Button, Group, Stack, Text, Title } from "@mantine/core";
import { useState } from "react";
import { client, dataOf } from "../api/client";
import { showDone } from "../app/refusals";
import { saveFile } from "../app/save";
import { useAct } from "../app/useAct";
import { Confirm } from "./Confirm";
import type { Project } from "./ProjectPage";

export function EscrowSection({ project }: { project: Project }) {
  const [asking, setAsking] = useState(false);
  const begin = useAct(
    async () =>
      dataOf(
        await client.POST("/api/projects/{project_id}/escrow", { params: { path: { project_id: project.id } } }),
      ),
    {
      stale: [["project", project.id]],
      onDone: (key) => {
        const content = new Blob([JSON.stringify(key, null, 1)], { type: "application/json" });
        saveFile(content, `delineate-escrow-${project.id}.json`);
        showDone("The escrow file has been saved. Keep it where only the right people find it.");
      },
    },
  );
  const canBegin = project.is_empty && project.privacy.identities === "removed";
  return (
    <Stack maw={720} gap="xs">
      <Group gap="xs">
        <Title order={2} size="h4">Way back to the patients</Title>
        {project.has_escrow && <Badge variant="light" color="teal">sealed</Badge>}
      </Group>
      <Text size="sm" c="dimmed">
        {project.has_escrow
          ? "Each patient's identity is sealed. With the escrow file, a lead can re-identify an export; without it "
            + "nobody can, and there is no other copy of it."
          : "Without escrow, removed identities are gone for good. With it, they are sealed for a file that you "
            + "save now and that this server does not keep."}
      </Text>
      {!project.has_escrow && (
        <Group>
          <Button variant="default" onClick={() => setAsking(true)} loading={begin.isPending} disabled={!canBegin}>
            Begin escrow
          </Button>
          {!canBegin && (
            <Text size="sm" c="dimmed">
              {project.is_empty ? "This project keeps identities." : "Only before the first upload."}
            </Text>
          )}
        </Group>
      )}
      <Confirm
        opened={asking} title="Begin escrow" action="Save the escrow file"
        onConfirm={() => begin.mutate(undefined)} onClose={() => setAsking(false)}
      >
        The file is given once and kept nowhere else. Whoever has it can, as a lead, see who the patients are; if it is
        lost, nobody can. This cannot be undone.
      </Confirm>
    </Stack>
  );
}
