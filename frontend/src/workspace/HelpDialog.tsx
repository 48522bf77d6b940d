/** All keys, from the table that acts on them. */
import { Modal } from "@mantine/core";
import { memo } from "react";
import { SHORTCUTS } from "./shortcuts";
import classes from "./Workspace.module.css";

export const HelpDialog = memo(function HelpDialog({ isOpen, onClose }: { isOpen: boolean; onClose: () => void }) {
  return (
    <Modal opened={isOpen} onClose={onClose} closeOnEscape={false} title="Keys and mouse" size="xl" data-testid="help-dialog">
      <div className={classes.help}>
        {SHORTCUTS.map(({ name, shortcuts }) => (
          <section key={name}>
            <h3>{name}</h3>
            <dl>
              {shortcuts.map(({ shown, does }) => (
                <div key={shown}>
                  <dt>
                    <kbd className={classes.key}>{shown}</kbd>
                  </dt>
                  <dd>{does}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
      <p className={classes.mouse}>
        Left button: the tool in hand. Right drag or Ctrl + wheel: zoom. Middle drag: move. Wheel: slices. 1 to 9 choose a label.
      </p>
    </Modal>
  );
});
