/** The mask of the label in hand on the slice on screen: what it is, and what becomes of it. */
import { Button, Switch } from "@mantine/core";
import { IconArrowBackUp, IconArrowForwardUp, IconCheck, IconX } from "@tabler/icons-react";
import { shownPrompts } from "../session/canvas";
import { isEmpty } from "../session/draft";
import { area } from "../session/masks";
import { canvasAt, currentPlace, keyOf, type Answer, type Intent, type Session } from "../session/session";
import { markAt, maskAt, type Mark } from "./scene";
import { areaInCm2, type Label, type Series } from "./task";
import classes from "./Workspace.module.css";

interface MaskPanelProps {
  readonly session: Session;
  readonly label: Label | null;
  readonly series: Series;
  readonly goesOn: boolean;
  readonly onGoesOn: (goesOn: boolean) => void;
  readonly onIntent: (intent: Intent) => void;
  readonly onAccept: () => void;
}

export function MaskPanel({ session, label, series, goesOn, onGoesOn, onIntent, onAccept }: MaskPanelProps) {
  const place = currentPlace(session);
  const canvas = canvasAt(session, place);
  const mask = place === null ? null : maskAt(session, place, { isCurrent: true });
  const pixels = mask === null ? 0 : area(mask);
  const mark = place === null ? "none" : markAt(session, place);
  const revision = place === null ? undefined : session.revisions[keyOf(place)];
  const { points } = shownPrompts(canvas);
  const isBusy = session.accepting !== null;
  const isNothing = isEmpty(canvas.draft) && canvas.asking === null;
  return (
    <section className={classes.section} aria-live="polite">
      <h2>{label === null ? "Mask" : label.name}</h2>
      <dl className={classes.facts}>
        <dt>Area</dt>
        <dd>
          <span data-testid="mask-area" data-pixels={pixels}>
            {pixels} px
          </span>
          {inCm2(pixels, series)}
        </dd>
        <dt>State</dt>
        <dd data-testid="mask-state" data-mark={mark}>
          {stateOf(mark, revision?.number)}
        </dd>
        <dt>Points</dt>
        <dd>{points.length}</dd>
        <dt>Model</dt>
        <dd data-testid="model-answer" data-asking={canvas.asking?.state ?? "no"}>
          {answerOf(session)}
        </dd>
      </dl>

      <Button
        fullWidth
        size="xs"
        variant="default"
        className={canvas.asking?.state === "failed" ? undefined : classes.hidden}
        onClick={() => onIntent({ kind: "ask_again" })}
        data-testid="ask-again"
      >
        Ask the model again
      </Button>

      <div className={classes.buttons}>
        <Button
          size="xs"
          variant="default"
          leftSection={<IconArrowBackUp size={14} />}
          disabled={!session.mayEdit || (canvas.undo.length === 0 && canvas.asking === null)}
          onClick={() => onIntent({ kind: "undo" })}
          data-testid="undo"
        >
          Undo
        </Button>
        <Button
          size="xs"
          variant="default"
          leftSection={<IconArrowForwardUp size={14} />}
          disabled={!session.mayEdit || canvas.redo.length === 0}
          onClick={() => onIntent({ kind: "redo" })}
          data-testid="redo"
        >
          Redo
        </Button>
      </div>
      <Button
        fullWidth
        size="xs"
        variant="default"
        leftSection={<IconX size={14} />}
        disabled={!session.mayEdit || isNothing}
        onClick={() => onIntent({ kind: "clear" })}
        data-testid="clear"
      >
        Clear
      </Button>
      <Button
        fullWidth
        size="sm"
        color="teal"
        leftSection={<IconCheck size={16} />}
        disabled={!session.mayEdit || canvas.head === 0 || (mark === "accepted" && !isBusy)}
        loading={isBusy}
        onClick={onAccept}
        data-testid="accept"
      >
        Accept mask
      </Button>
      <Switch
        size="xs"
        checked={goesOn}
        onChange={(event) => onGoesOn(event.currentTarget.checked)}
        label="Then go to the next slice"
      />
    </section>
  );
}

function stateOf(mark: Mark, revision: number | undefined): string {
  switch (mark) {
    case "none":
      return "Nothing yet";
    case "changed":
      return revision === undefined ? "Not accepted yet" : `Changed since revision ${revision}`;
    case "accepted":
      return `Accepted, revision ${revision ?? 1}`;
  }
}

function answerOf(session: Session): string {
  const place = currentPlace(session);
  const { asking, draft } = canvasAt(session, place);
  switch (asking?.state) {
    case "waiting":
      return session.connection === "open" ? "Asking…" : "Waiting for the connection…";
    case "in_flight":
      return "Asking…";
    case "preparing":
      return "Preparing this slice…";
    case "failed":
      return "No answer";
    case undefined:
      break;
  }
  const { answer } = session;
  const isOfThis = answer !== null && place !== null && keyOf(answer) === keyOf(place);
  if (draft.proposal === null) return "Not asked";
  const iou = `IoU ${draft.proposal.predicted_iou.toFixed(2)}`;
  return isOfThis ? `${iou} · ${timingOf(answer)}` : iou;
}

function timingOf({ serverMs, timing }: Answer): string {
  return `${Math.round(serverMs)} ms (model ${Math.round(timing.decode_ms)})`;
}

function inCm2(pixels: number, series: Series): string {
  const cm2 = areaInCm2(pixels, series);
  return cm2 === null || pixels === 0 ? "" : ` · ${cm2.toFixed(2)} cm²`;
}
