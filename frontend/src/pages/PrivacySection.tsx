/** What is kept of who a project's patients are: the choices, each with what it means. */
import { Alert, Button, Checkbox, Group, Radio, Stack, Text, Title } from "@mantine/core";
import { IconAlertTriangle } from "@tabler/icons-react";
import { useState } from "react";
import { client, dataOf, type Schemas } from "../api/client";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import type { Project } from "./ProjectPage";

type Privacy = Schemas["Policy"];
type Switch = "patient_characteristics" | "device" | "safe_private";

const SWITCHES: { name: Switch; label: string; description: string }[] = [
  {
    name: "patient_characteristics",
    label: "Keep sex, age, height and weight",
    description: "Ages above 89 years become 90. Each of them makes a patient easier to find among few.",
  },
  {
    name: "device",
    label: "Keep the scanner's maker and model",
    description: "Only well-known names; no serial numbers and no station names.",
  },
  {
    name: "safe_private",
    label: "Keep vendors' safe numbers",
    description: "Diffusion b-values and scale factors that the DICOM standard lists as safe.",
  },
];

export const KEEP_WARNING =
  "Names, patient numbers, birth dates, dates and UIDs stay as they are, for every member of the project to see, "
  + "and leave with its exports. Choose this only where you may. It cannot be changed once there are studies.";

export function PrivacySection({ project }: { project: Project }) {
  const [privacy, setPrivacy] = useState<Privacy>(project.privacy);
  const save = useAct(
    async () =>
      dataOf(
        await client.PUT("/api/projects/{project_id}/privacy", {
          params: { path: { project_id: project.id } },
          body: privacy,
        }),
      ),
    { stale: [["project", project.id]], onDone: () => showDone("Later uploads are treated as you chose.") },
  );
  const isKept = privacy.identities === "kept";
  const isChanged = JSON.stringify(privacy) !== JSON.stringify(project.privacy);
  return (
    <Stack maw={720}>
      <div>
        <Title order={2} size="h4">Privacy</Title>
        <Text size="sm" c="dimmed">
          What is kept of who patients are, of everything that is uploaded from now on. Names that are drawn in the
          pixels stay until you black them out in the quarantine.
        </Text>
      </div>
      <Radio.Group
        label="Identities" value={privacy.identities}
        description={project.is_empty ? undefined : "Chosen before the first upload; this project has studies."}
        onChange={(value) => setPrivacy({ ...privacy, identities: value === "kept" ? "kept" : "removed" })}
      >
        <Stack gap="xs" mt="xs">
          <Radio
            value="removed" label="Remove" disabled={!project.is_empty}
            description="A patient becomes a pseudonym; everything that is not on a short list goes."
          />
          <Radio
            value="kept" label="Keep" disabled={!project.is_empty}
            description="Patients are shown by their own numbers."
          />
        </Stack>
      </Radio.Group>
      {isKept && <Alert color="red" icon={<IconAlertTriangle />} title="Patients can be identified">{KEEP_WARNING}</Alert>}
      <Radio.Group
        label="Dates" value={privacy.dates}
        onChange={(value) => setPrivacy({ ...privacy, dates: value === "removed" ? "removed" : "shifted" })}
      >
        <Stack gap="xs" mt="xs">
          <Radio
            value="shifted" label="Move" disabled={isKept}
            description="By as many days for all of a patient's images: how long lies between them stays right."
          />
          <Radio value="removed" label="Remove" disabled={isKept} description="No dates and no times of day." />
        </Stack>
      </Radio.Group>
      {SWITCHES.map(({ name, label, description }) => (
        <Checkbox
          key={name} label={label} description={description} checked={privacy[name]}
          onChange={(event) => setPrivacy({ ...privacy, [name]: event.currentTarget.checked })}
        />
      ))}
      <Group>
        <Button onClick={() => save.mutate(undefined)} loading={save.isPending} disabled={!isChanged}>
          Save privacy
        </Button>
      </Group>
    </Stack>
  );
}
