/** What is kept beside a study's images, and what that means. */
import { Text, Tooltip } from "@mantine/core";
import type { Schemas } from "../api/client";
import { referencesInWords } from "./words";

export function References({ references }: { references: Schemas["StudyOut"]["references"] }) {
  if (references.length === 0) return null;
  return (
    <Tooltip multiline w={300} events={{ hover: true, focus: true, touch: true }}
      label="What others have segmented, planned or measured. It is kept beside the images, without names, and leaves over DICOMweb; nobody delineates it, and exports do not hold it.">
      <Text size="xs" c="dimmed" tabIndex={0} data-testid="references">{referencesInWords(references)}</Text>
    </Tooltip>
  );
}
