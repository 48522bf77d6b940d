/** The labels, and where each stands on the slice on screen. */
import { IconCheck, IconPencil } from "@tabler/icons-react";
import { UnstyledButton } from "@mantine/core";
import type { Session } from "../session/session";
import { markAt, type Mark } from "./scene";
import type { Label } from "./task";
import classes from "./Workspace.module.css";

const MEANINGS: Readonly<Record<Mark, string>> = {
  none: "not delineated on this slice",
  changed: "not accepted yet on this slice",
  accepted: "accepted on this slice",
};

interface LabelListProps {
  readonly session: Session;
  readonly labels: readonly Label[];
  readonly onChoose: (labelId: string) => void;
}

export function LabelList({ session, labels, onChoose }: LabelListProps) {
  const slice_id = session.sliceIds[session.sliceIndex] ?? "";
  return (
    <section className={classes.section}>
      <h2>Labels</h2>
      <div role="radiogroup" aria-label="Label to delineate">
        {labels.map(({ id, name, color }, index) => {
          const mark = markAt(session, { slice_id, label_id: id });
          return (
            <UnstyledButton
              key={id}
              role="radio"
              aria-checked={id === session.labelId}
              aria-label={`${name}, ${MEANINGS[mark]}`}
              className={classes.label ?? ""}
              onClick={() => onChoose(id)}
              data-testid={`label-${name}`}
              data-mark={mark}
            >
              <span className={classes.swatch} style={{ background: color }} />
              <span className={classes.labelName}>{name}</span>
              <span className={classes.mark} title={MEANINGS[mark]}>
                {mark === "accepted" && <IconCheck size={14} color="var(--mantine-color-teal-4)" />}
                {mark === "changed" && <IconPencil size={14} color="var(--mantine-color-yellow-4)" />}
              </span>
              {index < 9 && <kbd className={classes.key}>{index + 1}</kbd>}
            </UnstyledButton>
          );
        })}
      </div>
    </section>
  );
}
