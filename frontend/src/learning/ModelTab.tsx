/** How the project's model learns: what answers, what it learnt, and whether that helps. */
import { Divider, Stack } from "@mantine/core";
import { useSearchParams } from "react-router";
import type { Project } from "../pages/ProjectPage";
import { ComparisonSection } from "./ComparisonSection";
import { DriftSection } from "./DriftSection";
import { HelpingSection } from "./HelpingSection";
import { ModelsSection } from "./ModelsSection";
import { PartsSection } from "./PartsSection";
import { RunsSection } from "./RunsSection";
import { SettingsSection } from "./SettingsSection";

export function ModelTab({ project }: { project: Project }) {
  // In the address, so that a reload, or whom it is sent to, comes back to the comparison.
  const [address, setAddress] = useSearchParams();
  const comparisonId = address.get("comparison");
  const shared = { projectId: project.id, mayLearn: project.actions.includes("learn") };
  return (
    <Stack gap="xl">
      <ModelsSection {...shared} onCompared={(comparison) => setAddress({ comparison })} />
      {comparisonId !== null && (
        <ComparisonSection projectId={project.id} comparisonId={comparisonId} onClose={() => setAddress({})} />
      )}
      <Divider />
      <RunsSection {...shared} />
      <Divider />
      <HelpingSection projectId={project.id} />
      <DriftSection projectId={project.id} />
      <Divider />
      <SettingsSection {...shared} />
      <Divider />
      <PartsSection {...shared} />
    </Stack>
  );
}
