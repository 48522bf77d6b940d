/** How the project's model learns: what answers, what it learnt, and whether that helps. */
import { Alert, Divider, Stack, Text } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useSearchParams } from "react-router";
import { queries } from "../api/queries";
import type { Project } from "../pages/ProjectPage";
import { Comparisons, ComparisonSection } from "./ComparisonSection";
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
  const { data: learning } = useQuery(queries.learning(project.id));
  return (
    <Stack gap="xl">
      {learning !== undefined && learning.fallen.length > 0 && (
        <Alert color="yellow" title="First proposals have got worse">
          {learning.fallen.map((sentence) => <Text key={sentence} size="sm">{sentence}</Text>)}
        </Alert>
      )}
      <ModelsSection {...shared} onCompared={(comparison) => setAddress({ comparison })} />
      {comparisonId !== null && (
        <ComparisonSection projectId={project.id} comparisonId={comparisonId} onClose={() => setAddress({})} />
      )}
      <Comparisons projectId={project.id} shownId={comparisonId} onShown={(comparison) => setAddress({ comparison })} />
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
