/** How the project learns: leads decide it, others read it. */
import { Button, Group, Loader, NumberInput, Select, SimpleGrid, Stack, Switch, Text, Title } from "@mantine/core";
import { useQuery } from "@tanstack/react-query";
import { useState, type SyntheticEvent } from "react";
import { client, dataOf, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { areSame, formOf, settingsInWords, settingsOf, type LearningSettings, type SettingsForm } from "./settingsForm";

const SCHEDULES: { value: Schemas["Schedule"]; label: string }[] = [
  { value: "off", label: "By hand only" },
  { value: "nightly", label: "Every night" },
  { value: "masks", label: "After so many accepted masks" },
];
const TRAINABLES: { value: Schemas["Trainable"]; label: string }[] = [
  { value: "everything", label: "Everything: gains most" },
  { value: "adapters", label: "Decoder and adapters: less memory for large models" },
  { value: "decoder", label: "The decoder alone: quickest" },
];
const PARENTS: { value: Schemas["Parent"]; label: string }[] = [
  { value: "active", label: "The model that answers now" },
  { value: "default", label: "The installation’s default" },
];

export function SettingsSection({ projectId, mayLearn }: { projectId: string; mayLearn: boolean }) {
  const { data: learning, error } = useQuery(queries.learning(projectId));
  return (
    <Stack>
      <Title order={2} size="h4">How the project learns</Title>
      {error && <Text c="red" role="alert">{error.message}</Text>}
      {learning === undefined && !error && <Loader aria-label="Loading settings" />}
      {learning && !mayLearn && <Text size="sm">{settingsInWords(learning.settings)}</Text>}
      {/* Keyed: when somebody else has changed them, the form shows theirs. */}
      {learning && mayLearn && (
        <Form key={JSON.stringify(learning.settings)} projectId={projectId} settings={learning.settings} />
      )}
    </Stack>
  );
}

function Form({ projectId, settings }: { projectId: string; settings: LearningSettings }) {
  const [form, setForm] = useState(() => formOf(settings));
  const wanted = settingsOf(form);
  const save = useAct(
    async (body: LearningSettings) =>
      dataOf(await client.PUT("/api/projects/{project_id}/learning/settings", { params: { path: { project_id: projectId } }, body })),
    { stale: [["project", projectId, "learning"]], onDone: () => showDone("The settings have been saved.") },
  );
  const set = (change: Partial<SettingsForm>) => setForm({ ...form, ...change });
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    if (wanted !== null) save.mutate(wanted);
  };
  return (
    <form onSubmit={submit}>
      <Stack maw={860}>
        <SimpleGrid cols={{ base: 1, sm: 2 }}>
          <Select
            label="A run begins" data={SCHEDULES} value={form.schedule} allowDeselect={false}
            onChange={(schedule) => schedule && set({ schedule })}
          />
          <NumberInput
            label="Accepted masks from run to run" min={1} max={100_000} allowDecimal={false} disabled={form.schedule !== "masks"}
            value={form.every_masks} onChange={(every_masks) => set({ every_masks })}
          />
          <NumberInput
            label="Not before (hour, UTC)" min={0} max={23} allowDecimal={false} disabled={form.schedule === "off"}
            description="The same hour twice means at any time."
            value={form.window_from} onChange={(window_from) => set({ window_from })}
          />
          <NumberInput
            label="And until (hour, UTC)" min={0} max={23} allowDecimal={false} disabled={form.schedule === "off"}
            description="A run that began by itself ends then, with what it has."
            value={form.window_until} onChange={(window_until) => set({ window_until })}
          />
          <NumberInput
            label="Minutes of training at most" min={1} max={10_080} allowDecimal={false}
            value={form.budget_minutes} onChange={(budget_minutes) => set({ budget_minutes })}
          />
          <NumberInput
            label="Epochs" min={1} max={1000} allowDecimal={false} value={form.epochs} onChange={(epochs) => set({ epochs })}
          />
          <Select
            label="What learns" data={TRAINABLES} value={form.trainable} allowDeselect={false}
            onChange={(trainable) => trainable && set({ trainable })}
          />
          <Select
            label="A run starts from" data={PARENTS} value={form.parent} allowDeselect={false}
            onChange={(parent) => parent && set({ parent })}
          />
          <NumberInput
            label="Learning rate" min={0} max={0.1} step={0.0001} decimalScale={8}
            value={form.learning_rate} onChange={(learning_rate) => set({ learning_rate })}
          />
          <NumberInput
            label="New subjects that are held out" suffix=" %" min={0} max={100}
            description="They judge the models and are never learnt from."
            value={form.held_out_percent} onChange={(held_out_percent) => set({ held_out_percent })}
          />
          <NumberInput
            label="Confidence that a model is better" suffix=" %" min={50} max={99.99}
            value={form.confidence_percent} onChange={(confidence_percent) => set({ confidence_percent })}
          />
          <NumberInput
            label="Dice that a label may lose" min={0} max={1} step={0.01} decimalScale={4}
            value={form.tolerance} onChange={(tolerance) => set({ tolerance })}
          />
        </SimpleGrid>
        <Switch
          label="A better model answers by itself" description="Otherwise a lead lets it answer."
          checked={form.automatic} onChange={(event) => set({ automatic: event.currentTarget.checked })}
        />
        <Group>
          <Button type="submit" loading={save.isPending} disabled={wanted === null || areSame(wanted, settings)}>Save</Button>
          {wanted === null && <Text size="sm" c="red">A number is missing or out of range.</Text>}
        </Group>
      </Stack>
    </form>
  );
}
