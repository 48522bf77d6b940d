/** Where somebody delineates: labels and tools, the slice, and what becomes of its mask. */
import { Alert, Anchor, Badge, Button, Notification } from "@mantine/core";
import { useCallback, useEffect, useEffectEvent, useMemo, useState, type ReactNode } from "react";
import { Link } from "react-router";
import { modalityInWords } from "../pages/words";
import type { Runner } from "../session/runner";
import { currentPlace, keyOf, type Intent } from "../session/session";
import type { ImageStack } from "../viewer/imageStack";
import { Viewer } from "../viewer/Viewer";
import type { Window } from "../viewer/windows";
import { HelpDialog } from "./HelpDialog";
import { LabelList } from "./LabelList";
import { MaskPanel } from "./MaskPanel";
import { ReviewPanel } from "./ReviewPanel";
import { SaveState } from "./SaveState";
import { sceneKeeper } from "./scene";
import { commandFor, nextRadius, type Command } from "./shortcuts";
import { SliceStrip } from "./SliceStrip";
import { may, sourceOf, STATE_NAMES, whyReadOnly, windowOf, type Task } from "./task";
import { ToolPanel } from "./ToolPanel";
import { useRunner, useSession, useSliceInAddress } from "./useSession";
import { VerdictDialog } from "./VerdictDialog";
import { WindowPanel } from "./WindowPanel";
import classes from "./Workspace.module.css";
import type { Verdict } from "./taskApi";

interface WorkspaceProps {
  readonly task: Task;
  readonly reloadTask: () => void;
}

const NOTICE_MS = 6000;

export function Workspace({ task, reloadTask }: WorkspaceProps) {
  const runner = useRunner(task, { reloadTask });
  const session = useSession(runner);
  useSliceInAddress(runner);
  const { dispatch } = runner;
  const { series, labels } = task;
  const [voi, setVoi] = useState<Window | null>(() => windowOf(series));
  const [stack, setStack] = useState<ImageStack | null>(null);
  const [areMasksShown, setMasksShown] = useState(true);
  const [goesOn, setGoesOn] = useState(readGoesOn);
  const [isHelpShown, setHelpShown] = useState(false);
  const [verdict, setVerdict] = useState<Verdict | null>(null);

  // One object per series: the viewer opens it anew when it changes, and a refetched task is the same series.
  const sourceKey = JSON.stringify(sourceOf(task));
  const source = useMemo(() => JSON.parse(sourceKey) as ReturnType<typeof sourceOf>, [sourceKey]);
  const [keepScene] = useState(sceneKeeper);
  const scene = keepScene(session, labels, { areMasksShown });
  const label = labels.find(({ id }) => id === session.labelId) ?? null;
  const place = currentPlace(session);
  const isAccepting = session.accepting !== null && place !== null && keyOf(session.accepting) === keyOf(place);
  const maySubmit = task.moves.includes("submit");
  const mayDraw = session.mayEdit && label !== null && areMasksShown && !isAccepting;

  // Reads the session when it acts, so that it stays the same function and panels are not rendered again.
  const obey = useCallback((command: Command): void => {
    const present = runner.current();
    switch (command.kind) {
      case "tool":
        dispatch({ kind: "choose_tool", tool: command.tool });
        return;
      case "radius":
        dispatch({ kind: "choose_radius", radius: nextRadius(present.radius, command.factor) });
        return;
      case "slices":
        dispatch({ kind: "go_to_slice", index: present.sliceIndex + command.by });
        return;
      case "label": {
        const labelId = present.labelIds[command.index];
        if (labelId !== undefined) dispatch({ kind: "choose_label", labelId });
        return;
      }
      case "accept":
        dispatch({ kind: "accept", goesOn });
        return;
      case "submit":
        if (maySubmit) setVerdict("submit");
        return;
      case "help":
        setHelpShown(true);
        return;
      case "masks":
        setMasksShown((areShown) => !areShown);
        return;
      case "fit":
        stack?.fit();
        return;
      case "undo":
      case "redo":
      case "clear":
        dispatch({ kind: command.kind });
        return;
    }
  }, [runner, dispatch, stack, goesOn, maySubmit]);
  const chooseRadius = useCallback((radius: number) => dispatch({ kind: "choose_radius", radius }), [dispatch]);
  const chooseFullWindow = useCallback(() => {
    const full = stack?.fullWindow() ?? null;
    if (full !== null) setVoi(full);
  }, [stack]);
  const closeHelp = useCallback(() => setHelpShown(false), []);
  const seriesWindow = useMemo(() => windowOf(series), [series]);

  const onKey = useEffectEvent((event: KeyboardEvent) => {
    if (isHelpShown || verdict !== null) {
      // Dialogs do not close themselves: this would then take the same Escape for "clear the mask".
      if (event.key === "Escape") {
        setHelpShown(false);
        setVerdict(null);
      }
      return;
    }
    if (event.defaultPrevented || isForControl(event)) return;
    const command = commandFor(event);
    if (command === null) return;
    event.preventDefault();
    obey(command);
  });

  useEffect(() => {
    const listener = (event: KeyboardEvent) => onKey(event);
    window.addEventListener("keydown", listener);
    return () => window.removeEventListener("keydown", listener);
  }, []);

  const noticeNumber = session.notice?.tone === "info" ? session.notice.number : null;
  useEffect(() => {
    if (noticeNumber === null) return;
    const timer = setTimeout(() => dispatch({ kind: "dismiss_notice" }), NOTICE_MS);
    return () => clearTimeout(timer);
  }, [noticeNumber, dispatch]);

  const readOnly = whyReadOnly(task);
  return (
    <div className={classes.workspace} data-testid="workspace">
      <header className={classes.header}>
        <Anchor component={Link} to={`/projects/${task.project_id}`} size="sm">
          {task.project_name}
        </Anchor>
        <span className={classes.title}>
          Study {series.study_number} · {series.subject} · {modalityInWords(series.modality)}
        </span>
        <Badge variant="light" color={STATE_COLORS[task.state]} data-testid="task-state" data-state={task.state}>
          {STATE_NAMES[task.state]}
        </Badge>
        <span className={classes.space} />
        <SaveState session={session} />
        <Button variant="subtle" size="compact-sm" onClick={() => setHelpShown(true)} data-testid="help">
          Keys ?
        </Button>
        <VerdictButtons task={task} onChoose={setVerdict} />
      </header>

      <Banners task={task} readOnly={readOnly} />

      <div className={classes.columns}>
        <aside className={classes.side} aria-label="Labels and tools">
          <LabelList session={session} labels={labels} onChoose={(labelId) => dispatch({ kind: "choose_label", labelId })} />
          <ToolPanel
            tool={session.tool}
            radius={session.radius}
            mayEdit={session.mayEdit && label !== null}
            areMasksShown={areMasksShown}
            onCommand={obey}
            onRadius={chooseRadius}
          />
          <WindowPanel
            window={voi}
            modality={series.modality}
            seriesWindow={seriesWindow}
            onChoose={setVoi}
            onFull={chooseFullWindow}
          />
        </aside>

        <main className={classes.centre}>
          {labels.length === 0 && <NoLabels task={task} />}
          <Viewer
            source={source}
            size={session}
            unit={series.modality === "CT" ? "HU" : ""}
            sliceIndex={session.sliceIndex}
            scene={scene}
            tool={session.tool}
            radius={session.radius}
            color={label?.color ?? "#ffffff"}
            mayEdit={mayDraw}
            window={voi}
            onWindow={setVoi}
            onPoint={(point) => dispatch({ kind: "add_point", point })}
            onBox={(box) => dispatch({ kind: "set_box", box })}
            onStroke={(stroke) => dispatch({ kind: "draw", ...stroke })}
            onScroll={(by) => dispatch({ kind: "go_to_slice", index: session.sliceIndex + by })}
            onStack={setStack}
          />
          <SliceStrip session={session} labels={labels} onGo={(index) => dispatch({ kind: "go_to_slice", index })} />
          <Notice runner={runner} />
        </main>

        <aside className={classes.side} aria-label="This mask">
          <MaskPanel
            session={session}
            label={label}
            series={series}
            goesOn={goesOn}
            onGoesOn={(on) => {
              writeGoesOn(on);
              setGoesOn(on);
            }}
            onIntent={(intent: Intent) => dispatch(intent)}
            onAccept={() => obey({ kind: "accept" })}
          />
          <ReviewPanel reviews={task.reviews} model={task.model} />
        </aside>
      </div>

      <HelpDialog isOpen={isHelpShown} onClose={closeHelp} />
      <VerdictDialog
        task={task}
        verdict={verdict}
        onClose={() => setVerdict(null)}
        onDone={() => {
          setVerdict(null);
          reloadTask();
        }}
      />
    </div>
  );
}

const STATE_COLORS: Readonly<Record<Task["state"], string>> = {
  open: "gray",
  in_progress: "blue",
  submitted: "yellow",
  returned: "orange",
  accepted: "teal",
};

function VerdictButtons({ task, onChoose }: { task: Task; onChoose: (verdict: Verdict) => void }) {
  const { moves } = task;
  return (
    <>
      {moves.includes("submit") && (
        <Button size="compact-sm" onClick={() => onChoose("submit")} data-testid="submit">
          Submit for review
        </Button>
      )}
      {moves.includes("return") && (
        <Button size="compact-sm" color="orange" variant="light" onClick={() => onChoose("return")} data-testid="review-return">
          Return…
        </Button>
      )}
      {moves.includes("accept") && (
        <Button size="compact-sm" color="teal" onClick={() => onChoose("accept")} data-testid="review-accept">
          Accept task…
        </Button>
      )}
      {moves.includes("reopen") && (
        <Button size="compact-sm" variant="light" onClick={() => onChoose("reopen")} data-testid="reopen">
          Reopen…
        </Button>
      )}
    </>
  );
}

function Banners({ task, readOnly }: { task: Task; readOnly: string | null }) {
  const lastWord = task.reviews.at(-1);
  return (
    <>
      {task.model?.trained === false && (
        <Banner tone="warning" testId="model-banner">
          This model is untrained: its proposals are random shapes. Train or add a model to get real ones.
        </Banner>
      )}
      {task.model === null && (
        <Banner tone="warning" testId="model-banner">
          There is no model yet, so nothing can be delineated here until one has been added.
        </Banner>
      )}
      {task.state === "returned" && lastWord !== undefined && (
        <Banner tone="warning" testId="returned-banner">
          Returned by {lastWord.reviewer}: {lastWord.comment}
        </Banner>
      )}
      {readOnly !== null && (
        <Banner tone="info" testId="read-only-banner">
          {readOnly}
        </Banner>
      )}
    </>
  );
}

function Banner({ tone, testId, children }: { tone: "info" | "warning"; testId: string; children: ReactNode }) {
  return (
    <div className={classes.banner} data-tone={tone} role="note" data-testid={testId}>
      {children}
    </div>
  );
}

function NoLabels({ task }: { task: Task }) {
  return (
    <Alert color="blue" className={classes.empty} title="There are no labels yet" data-testid="no-labels">
      A label names what is delineated.{" "}
      {may(task, "manage") ? (
        <Anchor component={Link} to={`/projects/${task.project_id}/labels`}>
          Add the first one
        </Anchor>
      ) : (
        "A lead of the project adds them; this page will show them at once."
      )}
    </Alert>
  );
}

function Notice({ runner }: { runner: Runner }) {
  const { notice } = useSession(runner);
  if (notice === null) return null;
  return (
    <Notification
      key={notice.number}
      className={classes.notice ?? ""}
      color={notice.tone === "error" ? "red" : "blue"}
      role={notice.tone === "error" ? "alert" : "status"}
      closeButtonProps={{ "aria-label": "Dismiss" }}
      onClose={() => runner.dispatch({ kind: "dismiss_notice" })}
      data-testid="notice"
    >
      {notice.text}
    </Notification>
  );
}

/** Whether a key belongs to the control that has the focus. */
function isForControl(event: KeyboardEvent): boolean {
  const { target, key } = event;
  if (!(target instanceof HTMLElement)) return false;
  if (target.isContentEditable || /^(TEXTAREA|SELECT)$/.test(target.tagName)) return true;
  if (target instanceof HTMLInputElement) return target.type !== "checkbox" || key === " ";
  if (target.getAttribute("role") === "slider") return key.startsWith("Arrow") || key === "Home" || key === "End";
  // Enter accepts the mask even while a tool's button still has the focus from being clicked.
  return target.tagName === "A" && key === "Enter";
}

const GOES_ON = "delineate.goes-on";

function readGoesOn(): boolean {
  return localStorage.getItem(GOES_ON) !== "no";
}

function writeGoesOn(goesOn: boolean): void {
  localStorage.setItem(GOES_ON, goesOn ? "yes" : "no");
}
