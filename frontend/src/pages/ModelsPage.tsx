/** The models of this installation, for its administrators: what there is, adding one, and which one answers. */
import { Alert, Badge, Button, Code, Group, Loader, Stack, Table, Text, Title, Tooltip } from "@mantine/core";
import { IconPlus } from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { useEffect, useState } from "react";
import { ApiError, client, dataOf, type Schemas } from "../api/client";
import { queries } from "../api/queries";
import { showDone } from "../app/refusals";
import { useAct } from "../app/useAct";
import { usePageTitle } from "../app/usePageTitle";
import { AddModelDialog } from "./AddModelDialog";
import { Confirm } from "./Confirm";
import { Empty } from "./Empty";
import { isUnderWay, outcomeOf, shortDigest, type ModelUpload } from "./modelWords";
import { NotFoundPage } from "./NotFoundPage";

type Model = Schemas["ModelDetails"];

const ASK_EVERY_MS = 1_500;
const UPLOADS_SHOWN = 3;

export function ModelsPage() {
  usePageTitle("Models");
  const models = useQuery(queries.models());
  const uploads = useLatestUploads();
  const [adding, setAdding] = useState(false);
  const add = <Button leftSection={<IconPlus size={16} />} onClick={() => setAdding(true)}>Add a model</Button>;
  if (models.error instanceof ApiError && models.error.status === 403) return <NotFoundPage message={models.error.message} />;
  return (
    <Stack>
      <Group justify="space-between">
        <Title order={1} size="h2">Models</Title>
        {add}
      </Group>
      {uploads.map((upload) => <UploadOutcome key={upload.id} upload={upload} />)}
      {models.isPending && <Loader aria-label="Loading models" />}
      {models.error !== null && <Text role="alert">{models.error.message}</Text>}
      {models.data?.length === 0 && (
        <Empty title="No models yet" action={add}>
          A model proposes the masks. Add the published SAM-Med2D checkpoint, one of the original SAM, or one that was
          fine-tuned from them; the first becomes the default at once.
        </Empty>
      )}
      {models.data !== undefined && models.data.length > 0 && <ModelTable models={models.data} />}
      <AddModelDialog opened={adding} onClose={() => setAdding(false)} />
    </Stack>
  );
}

/** What was uploaded last, asked for again until it has ended; then the models are asked for anew. */
function useLatestUploads(): ModelUpload[] {
  const queryClient = useQueryClient();
  const { data } = useQuery({
    ...queries.modelUploads(),
    refetchInterval: ({ state }) => (state.data?.some(isUnderWay) === true ? ASK_EVERY_MS : false),
  });
  const states = data?.map(({ id, state }) => `${id} ${state}`).join();
  useEffect(() => {
    if (states !== undefined) void queryClient.invalidateQueries({ queryKey: queries.models().queryKey });
  }, [states, queryClient]);
  return data?.slice(0, UPLOADS_SHOWN) ?? [];
}

function UploadOutcome({ upload }: { upload: ModelUpload }) {
  const [dismissed, setDismissed] = useState(false);
  const { color, title, message } = outcomeOf(upload);
  if (dismissed) return null;
  return (
    <Alert
      color={color} title={title} data-testid="model-upload" data-state={upload.state}
      withCloseButton={!isUnderWay(upload)} closeButtonLabel="Dismiss" onClose={() => setDismissed(true)}
      icon={isUnderWay(upload) ? <Loader size="xs" aria-label="Being read" /> : undefined}
    >
      {message} <Text span size="xs" c="dimmed">Uploaded {new Date(upload.created_at).toLocaleString()}.</Text>
    </Alert>
  );
}

export function ModelTable({ models }: { models: readonly Model[] }) {
  const [chosen, setChosen] = useState<Model>();
  const makeDefault = useAct(
    async (digest: string) => dataOf(await client.PUT("/api/models/default", { body: { digest } })),
    { stale: [["models"], ["project"]], onDone: ({ name }) => showDone(`${name} answers from now on.`) },
  );
  return (
    <>
      <Table.ScrollContainer minWidth={860}>
        <Table>
          <Table.Thead>
            <Table.Tr>
              <Table.Th>Name</Table.Th><Table.Th>Variant</Table.Th><Table.Th>Image size</Table.Th>
              <Table.Th>Adapters</Table.Th><Table.Th>Trained</Table.Th><Table.Th>Origin</Table.Th>
              <Table.Th>Digest</Table.Th><Table.Th>Added</Table.Th><Table.Th />
            </Table.Tr>
          </Table.Thead>
          <Table.Tbody>
            {models.map((model) => (
              <Table.Tr key={model.digest} data-testid="model-row">
                <Table.Td>{model.name}</Table.Td>
                <Table.Td>{model.variant}</Table.Td>
                <Table.Td>{model.image_size} px</Table.Td>
                <Table.Td>{model.adapters ? "yes" : "no"}</Table.Td>
                <Table.Td>
                  {model.trained ? "yes" : <Badge variant="light" color="orange">random weights</Badge>}
                </Table.Td>
                <Table.Td maw={240}><Text size="xs" c="dimmed">{model.origin || "unknown"}</Text></Table.Td>
                <Table.Td><Tooltip label={model.digest}><Code>{shortDigest(model.digest)}</Code></Tooltip></Table.Td>
                <Table.Td><Text size="sm" c="dimmed">{new Date(model.created_at).toLocaleString()}</Text></Table.Td>
                <Table.Td ta="right">
                  {model.is_default ? (
                    <Badge variant="light" color="teal">default</Badge>
                  ) : (
                    <Button
                      size="compact-sm" variant="light" loading={makeDefault.isPending && makeDefault.variables === model.digest}
                      onClick={() => setChosen(model)}
                    >
                      Make default
                    </Button>
                  )}
                </Table.Td>
              </Table.Tr>
            ))}
          </Table.Tbody>
        </Table>
      </Table.ScrollContainer>
      <Confirm
        opened={chosen !== undefined} title="Make this model the default?" action="Make default"
        onConfirm={() => chosen && makeDefault.mutate(chosen.digest)} onClose={() => setChosen(undefined)}
      >
        {chosen?.name} will answer prompts in every project from now on. Every slice, also those that are open, will be
        prepared anew for it; until then a first click takes longer. Accepted masks stay as they are.
      </Confirm>
    </>
  );
}
