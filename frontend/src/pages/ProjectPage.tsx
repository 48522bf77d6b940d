/** A project: its tabs, kept fresh by the server's notices. */
import { Anchor, Badge, Breadcrumbs, Center, Group, Loader, Stack, Tabs, Text, Title } from "@mantine/core";
import {
  IconActivity, IconBrain, IconChecklist, IconDownload, IconPhoto, IconSettings, IconShieldLock, IconTags, IconUser,
  IconUsers,
} from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import type { ReactNode } from "react";
import { Link, useNavigate, useParams } from "react-router";
import { ApiError, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { useNotices } from "../app/notices";
import { usePageTitle } from "../app/usePageTitle";
import { ModelTab } from "../learning/ModelTab";
import { ActivityTab } from "./ActivityTab";
import { ExportsTab } from "./ExportsTab";
import { LabelsTab } from "./LabelsTab";
import { MembersTab } from "./MembersTab";
import { NotFoundPage } from "./NotFoundPage";
import { QuarantineTab } from "./QuarantineTab";
import { SettingsTab } from "./SettingsTab";
import { StudiesTab } from "./StudiesTab";
import { SubjectsTab } from "./SubjectsTab";
import { TasksTab } from "./TasksTab";
import { counted, slicesInWords } from "./words";

export type Project = Schemas["ProjectDetail"];

interface Tab {
  name: string;
  title: string;
  icon: ReactNode;
  needs?: Schemas["Action"];
  content: (project: Project) => ReactNode;
}

// What is done daily first, then what the project is made of, then who looks after it.
const TABS: readonly Tab[] = [
  { name: "studies", title: "Studies", icon: <IconPhoto size={16} />, content: (project) => <StudiesTab project={project} /> },
  { name: "tasks", title: "Tasks", icon: <IconChecklist size={16} />, content: (project) => <TasksTab project={project} /> },
  { name: "quarantine", title: "Quarantine", icon: <IconShieldLock size={16} />, needs: "release", content: (project) => <QuarantineTab project={project} /> },
  { name: "labels", title: "Labels", icon: <IconTags size={16} />, content: (project) => <LabelsTab project={project} /> },
  { name: "subjects", title: "Subjects", icon: <IconUser size={16} />, needs: "manage_subjects", content: (project) => <SubjectsTab project={project} /> },
  { name: "exports", title: "Exports", icon: <IconDownload size={16} />, needs: "export", content: (project) => <ExportsTab project={project} /> },
  { name: "model", title: "Model", icon: <IconBrain size={16} />, content: (project) => <ModelTab project={project} /> },
  { name: "members", title: "Members", icon: <IconUsers size={16} />, content: (project) => <MembersTab project={project} /> },
  { name: "activity", title: "Activity", icon: <IconActivity size={16} />, needs: "view_audit", content: (project) => <ActivityTab project={project} /> },
  { name: "settings", title: "Settings", icon: <IconSettings size={16} />, needs: "manage", content: (project) => <SettingsTab project={project} /> },
];

export function ProjectPage() {
  const { projectId = "", tab = "studies" } = useParams();
  const navigate = useNavigate();
  const { data: project, error } = useQuery(queries.project(projectId));
  const { data: progress } = useQuery(queries.progress(projectId));
  const model = useQuery(queries.model(projectId));
  const held = useQuery({ ...queries.quarantine(projectId), enabled: project?.actions.includes("release") ?? false });
  const learning = useQuery({ ...queries.learning(projectId), enabled: project?.actions.includes("learn") ?? false });
  useNotices(projectId);
  usePageTitle(project?.name ?? "Project");

  if (error && (project === undefined || isGone(error))) return <NotFoundPage message={error.message} />;
  if (project === undefined) return <Center mt="xl"><Loader aria-label="Loading the project" /></Center>;

  const tabs = TABS.filter(({ needs }) => needs === undefined || project.actions.includes(needs));
  // What somebody is to look at, by tab.
  const waiting: Readonly<Record<string, number>> = { quarantine: held.data?.length ?? 0, model: learning.data?.fallen.length ?? 0 };
  const shown = tabs.find(({ name }) => name === tab);
  if (shown === undefined) return <NotFoundPage />;
  return (
    <Stack gap="md">
      <Breadcrumbs>
        <Anchor component={Link} to="/" size="sm">Projects</Anchor>
        <Text size="sm" c="dimmed">{project.name}</Text>
      </Breadcrumbs>
      <Group justify="space-between" align="flex-end">
        <Group gap="sm">
          <Title order={1} size="h2">{project.name}</Title>
          <Badge variant="light" color="gray">{project.role}</Badge>
        </Group>
        {progress !== undefined && progress.slices > 0 && <Standing progress={progress} />}
      </Group>
      {model.data?.trained === false && (
        <Text size="sm" c="yellow.5" role="note">
          The model of this project is untrained: its proposals are random shapes, good for trying the page only.
        </Text>
      )}
      {model.error && <Text size="sm" c="yellow.5" role="note">{model.error.message}</Text>}
      <Tabs value={shown.name} onChange={(name) => void navigate(`/projects/${projectId}/${name ?? ""}`)} keepMounted={false}>
        <Tabs.List mb="md">
          {tabs.map(({ name, title, icon }) => (
            <Tabs.Tab
              key={name} value={name} leftSection={icon} px="xs"
              rightSection={<Waiting count={waiting[name] ?? 0} />}
            >
              {title}
            </Tabs.Tab>
          ))}
        </Tabs.List>
        <Tabs.Panel value={shown.name}>{shown.content(project)}</Tabs.Panel>
      </Tabs>
    </Stack>
  );
}

function Waiting({ count }: { count: number }) {
  if (count === 0) return null;
  return <Badge size="sm" color="yellow" circle={count < 10} aria-label={`${count} to look at`}>{count}</Badge>;
}

/** Not when the server was merely away for a moment: what is known can still be shown. */
function isGone(error: Error): boolean {
  return error instanceof ApiError && error.status === 404;
}

function Standing({ progress }: { progress: Schemas["Progress"] }) {
  const total = Object.values(progress.tasks).reduce((sum, n) => sum + n, 0);
  return (
    <Text size="sm" c="dimmed">
      {progress.tasks.accepted} of {counted(total, "task")} accepted · {counted(progress.accepted_masks, "mask")} ·{" "}
      {progress.prepared_slices} of {slicesInWords(progress.slices)} prepared
    </Text>
  );
}
