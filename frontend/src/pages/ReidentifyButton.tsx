/** An export with its patients' identities: the escrow file is sent with the request and kept nowhere. */
import { Button, FileButton } from "@mantine/core";
import { IconUserSearch } from "@tabler/icons-react";
import { client, dataOf } from "../api/client";
import { saveFile } from "../app/save";
import { useAct } from "../app/useAct";

export function ReidentifyButton({ exportId, fileName }: { exportId: string; fileName: string }) {
  const reidentify = useAct(
    async (file: File) =>
      dataOf(
        await client.POST("/api/exports/{export_id}/reidentified", {
          params: { path: { export_id: exportId } },
          body: { escrow: await file.text() },
          parseAs: "blob",
        }),
      ),
    { stale: [], onDone: (zip) => saveFile(zip, fileName) },
  );
  return (
    <FileButton accept="application/json" onChange={(file) => file && reidentify.mutate(file)}>
      {(props) => (
        <Button
          {...props} size="compact-sm" variant="subtle" loading={reidentify.isPending}
          leftSection={<IconUserSearch size={14} />} title="Choose the project's escrow file"
        >
          Re-identify
        </Button>
      )}
    </FileButton>
  );
}
