/** An export with its patients' identities: the escrow file is sent with the request and kept nowhere. */
import { Button, FileButton } from "@mantine/core";
import { IconUserSearch } from "@tabler/icons-react";
import { client, dataOf } from "../api/client";
import { showDone } from "../app/refusals";
import { saveFile } from "../app/save";
import { useAct } from "../app/useAct";

// Of a larger file no more is sent than shows the server that it is another one.
const READ_BYTES = 5_000;

export function ReidentifyButton({ exportId, fileName }: { exportId: string; fileName: string }) {
  const reidentify = useAct(
    async (file: File) =>
      dataOf(
        await client.POST("/api/exports/{export_id}/reidentified", {
          params: { path: { export_id: exportId } },
          body: { escrow: await file.slice(0, READ_BYTES).text() },
          parseAs: "blob",
        }),
      ),
    { stale: [], onDone: (zip) => { saveFile(zip, fileName); showDone("The export has been saved with its patients' identities."); } },
  );
  return (
    <FileButton accept="application/json" onChange={(file) => file && reidentify.mutate(file)}>
      {(props) => (
        <Button
          {...props} size="compact-sm" variant="subtle" loading={reidentify.isPending}
          leftSection={<IconUserSearch size={14} />} title="The same export with who the patients are; asks for the project's escrow file"
        >
          Re-identify…
        </Button>
      )}
    </FileButton>
  );
}
