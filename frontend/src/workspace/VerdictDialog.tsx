/** Submitting, accepting, returning and reopening a task, each with a word before it is done. */
import { Alert, Button, Group, Modal, Stack, Text, Textarea } from "@mantine/core";
import { useMutation } from "@tanstack/react-query";
import { useState } from "react";
import { postVerdict, type Verdict } from "./taskApi";
import type { Task } from "./task";

interface Wording {
  readonly title: string;
  readonly text: string;
  readonly button: string;
  readonly comment: "none" | "optional" | "required";
}

const WORDINGS: Readonly<Record<Verdict, Wording>> = {
  submit: {
    title: "Submit for review",
    text: "A reviewer will look at the accepted masks. Until they answer, the masks cannot be changed.",
    button: "Submit",
    comment: "none",
  },
  accept: {
    title: "Accept this task",
    text: "The masks are taken as they are, and count as reviewed.",
    button: "Accept",
    comment: "optional",
  },
  return: {
    title: "Return this task",
    text: "The annotator is asked to correct the masks and to submit them again.",
    button: "Return",
    comment: "required",
  },
  reopen: {
    title: "Reopen this task",
    text: "The masks can be changed again, and must be submitted and reviewed anew.",
    button: "Reopen",
    comment: "none",
  },
};

interface VerdictDialogProps {
  readonly task: Task;
  readonly verdict: Verdict | null;
  readonly onClose: () => void;
  readonly onDone: () => void;
}

export function VerdictDialog({ task, verdict, onClose, onDone }: VerdictDialogProps) {
  return (
    <Modal opened={verdict !== null} onClose={onClose} closeOnEscape={false} title={verdict === null ? "" : WORDINGS[verdict].title}>
      {verdict !== null && <Verdict key={verdict} taskId={task.id} verdict={verdict} onClose={onClose} onDone={onDone} />}
    </Modal>
  );
}

function Verdict({
  taskId,
  verdict,
  onClose,
  onDone,
}: Pick<VerdictDialogProps, "onClose" | "onDone"> & { taskId: string; verdict: Verdict }) {
  const [comment, setComment] = useState("");
  const { text, button, comment: wanted } = WORDINGS[verdict];
  const { mutate, error, isPending } = useMutation({
    mutationFn: () => postVerdict(taskId, { verdict, comment: comment.trim() }),
    onSuccess: onDone,
  });
  return (
    <form
      onSubmit={(event) => {
        event.preventDefault();
        mutate();
      }}
    >
      <Stack>
        <Text size="sm">{text}</Text>
        {wanted !== "none" && (
          <Textarea
            label={wanted === "required" ? "What is to be corrected?" : "Comment (optional)"}
            required={wanted === "required"}
            autosize
            minRows={3}
            data-autofocus
            value={comment}
            onChange={(event) => setComment(event.currentTarget.value)}
            data-testid="verdict-comment"
          />
        )}
        {error !== null && (
          <Alert color="red" role="alert" data-testid="verdict-error">
            {error.message}
          </Alert>
        )}
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={isPending} data-testid="verdict-confirm">
            {button}
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
