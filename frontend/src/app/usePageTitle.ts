/** The browser tab's title, for people with many tabs. */
import { useEffect } from "react";

export function usePageTitle(title: string): void {
  useEffect(() => {
    document.title = `${title} · Delineate`;
  }, [title]);
}
