/** Studies with their series, how far they are prepared, and bringing new ones in. */
import { ActionIcon, Alert, Anchor, Badge, Button, Group, Loader, Progress, Stack, Table, Text, ThemeIcon, Tooltip } from "@mantine/core";
import { IconAlertTriangle, IconTrash } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link, useNavigate } from "react-router";
import { client, dataOf, throwRefusal, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { Confirm } from "./Confirm";
import { Empty } from "./Empty";
import type { Project } from "./ProjectPage";
import { References } from "./References";
import { TaskState } from "./taskStates";
import { Uploads } from "./Uploads";
import { seriesInWords, slicesInWords } from "./words";

export function StudiesTab({ project }: { project: Project }) {
  const studies = useQuery(queries.studies(project.id));
  const tasks = useQuery(queries.tasks(project.id));
  const [deleting, setDeleting] = useState<Schemas["StudyOut"]>();
  const stateOf = new Map(tasks.data?.map((task) => [task.series_id, task.state]));
  const keepsIdentities = project.privacy.identities === "kept";
  const mayUpload = project.actions.includes("upload");
  const mayDelete = project.actions.includes("delete_study");
  const mayRelease = project.actions.includes("release");
  const quarantinePage = `/projects/${project.id}/quarantine`;
  const held = studies.data?.flatMap(({ series }) => series).filter(({ quarantine }) => quarantine === "held").length ?? 0;
  const remove = useAct(
    async (study: Schemas["StudyOut"]) =>
      throwRefusal(await client.DELETE("/api/studies/{study_id}", { params: { path: { study_id: study.id } } })),
    {
      stale: [["project", project.id]],
      onDone: (_, study) => showDone(`Study ${study.number} has been deleted.`),
    },
  );
  return (
    <Stack>
      {mayUpload && <Uploads projectId={project.id} keepsIdentities={keepsIdentities} />}
      {mayRelease && held > 0 && (
        <Alert color="yellow" data-testid="held-notice">
          {held === 1
            ? "1 series may show a patient's name in its pixels: nobody else can open it until you have looked. "
            : `${held} series may show patients' names in their pixels: nobody else can open them until you have looked. `}
          <Anchor component={Link} to={quarantinePage} size="sm">To the quarantine</Anchor>
        </Alert>
      )}
      {studies.isPending && <Loader aria-label="Loading studies" />}
      {studies.error && <Text c="red">{studies.error.message}</Text>}
      {studies.data?.length === 0 && (
        <Empty title="No studies yet">
          {mayUpload
            ? "Drop DICOM, NIfTI, NRRD or pictures, folders or archives of them, into the field above. Images that do not say who is on them take it from a subjects.csv among the files, with the columns file and subject. What is kept of patients is chosen in Settings, and most of it before the first upload."
            : "A project lead uploads studies; they appear here by themselves."}
        </Empty>
      )}
      {studies.data !== undefined && studies.data.length > 0 && (
        <Table.ScrollContainer minWidth={820}>
          <Table highlightOnHover verticalSpacing="xs">
            <Table.Thead>
              <Table.Tr>
                <Table.Th>Study</Table.Th>
                <Table.Th>Subject</Table.Th>
                <Table.Th>Series</Table.Th>
                <Table.Th>Size</Table.Th>
                <Table.Th w={180}>Prepared</Table.Th>
                <Table.Th>Task</Table.Th>
                <Table.Th />
              </Table.Tr>
            </Table.Thead>
            <Table.Tbody>
              {studies.data.flatMap((study) => [
                ...(study.series.length > 0 ? [] : [
                  <Table.Tr key={study.id} data-testid="study-without-series">
                    <Table.Td>{study.number}</Table.Td>
                    <Table.Td><Text ff="monospace" size="sm">{study.subject}</Text></Table.Td>
                    <Table.Td colSpan={4}><References references={study.references} /></Table.Td>
                    <Table.Td>
                      <Group justify="flex-end">{mayDelete && <DeleteButton study={study} onDelete={setDeleting} />}</Group>
                    </Table.Td>
                  </Table.Tr>,
                ]),
                ...study.series.map((series, position) => (
                  <Table.Tr key={series.id} data-testid="series-row">
                    <Table.Td>{position === 0 && study.number}</Table.Td>
                    <Table.Td>{position === 0 && <Text ff="monospace" size="sm">{study.subject}</Text>}</Table.Td>
                    <Table.Td>
                      <Group gap={6} wrap="nowrap">
                        {seriesInWords(series, study.series)}
                        <Oddities oddities={series.oddities} />
                      </Group>
                      {position === 0 && <References references={study.references} />}
                    </Table.Td>
                    <Table.Td>{series.columns} × {series.rows}, {slicesInWords(series.slices)}</Table.Td>
                    <Table.Td>
                      {series.quarantine === "held" ? <Held /> : <Prepared series={series} />}
                    </Table.Td>
                    <Table.Td>{series.quarantine !== "held" && <TaskState state={stateOf.get(series.id) ?? "open"} />}</Table.Td>
                    <Table.Td>
                      <Group gap="xs" justify="flex-end" wrap="nowrap">
                        {series.quarantine !== "held" && <OpenButton seriesId={series.id} />}
                        {series.quarantine === "held" && mayRelease && (
                          <Button component={Link} to={quarantinePage} size="compact-sm" variant="subtle">Look at it</Button>
                        )}
                        {mayDelete && position === 0 && <DeleteButton study={study} onDelete={setDeleting} />}
                      </Group>
                    </Table.Td>
                  </Table.Tr>
                )),
              ])}
            </Table.Tbody>
          </Table>
        </Table.ScrollContainer>
      )}
      <Confirm
        opened={deleting !== undefined}
        title={`Delete study ${deleting?.number ?? ""}?`}
        action="Delete for good"
        onConfirm={() => deleting && remove.mutate(deleting)}
        onClose={() => setDeleting(undefined)}
      >
        Its images, drafts and all accepted masks go with it. This cannot be undone.
      </Confirm>
    </Stack>
  );
}

function DeleteButton({ study, onDelete }: { study: Schemas["StudyOut"]; onDelete: (study: Schemas["StudyOut"]) => void }) {
  return (
    <Tooltip label={`Delete study ${study.number}`}>
      <ActionIcon variant="subtle" color="red" aria-label={`Delete study ${study.number}`} onClick={() => onDelete(study)}>
        <IconTrash size={16} />
      </ActionIcon>
    </Tooltip>
  );
}

/** What whoever works with the series should know of where its slices lie. */
function Oddities({ oddities }: { oddities: Schemas["SeriesOut"]["oddities"] }) {
  if (oddities.length === 0) return null;
  const sentences = oddities.map(({ sentence }) => sentence);
  return (
    <Tooltip multiline w={300} events={{ hover: true, focus: true, touch: true }} label={sentences.map((sentence) => <div key={sentence}>{sentence}</div>)}>
      <ThemeIcon variant="light" color="yellow" size="sm" tabIndex={0} aria-label={sentences.join(" ")} role="img" data-testid="oddities">
        <IconAlertTriangle size={14} />
      </ThemeIcon>
    </Tooltip>
  );
}

function Held() {
  const why = "A name may stand in its pixels: a lead looks at it before anybody can open it.";
  return (
    <Tooltip multiline w={260} label={why} events={{ hover: true, focus: true, touch: true }}>
      <Badge variant="light" color="yellow" tabIndex={0} aria-label={`in quarantine: ${why}`}>in quarantine</Badge>
    </Tooltip>
  );
}

function Prepared({ series }: { series: Schemas["SeriesOut"] }) {
  if (series.prepared >= series.slices) return <Text size="sm" c="dimmed">ready</Text>;
  return (
    <Stack gap={4}>
      <Progress value={(100 * series.prepared) / series.slices} size="sm" aria-label="Prepared slices" animated />
      <Text size="xs" c="dimmed">{series.prepared} of {series.slices}</Text>
    </Stack>
  );
}

function OpenButton({ seriesId }: { seriesId: string }) {
  const navigate = useNavigate();
  const open = useAct(
    async () => dataOf(await client.POST("/api/series/{series_id}/task", { params: { path: { series_id: seriesId } } })),
    { stale: [], onDone: (task) => void navigate(`/tasks/${task.id}`) },
  );
  return (
    <Button size="compact-sm" variant="light" loading={open.isPending} onClick={() => open.mutate(undefined)}>
      Open
    </Button>
  );
}
