/** What the page says of API tokens. */
import type { Schemas } from "../api/client";

export type Token = Schemas["TokenOut"];

/** How long a new one is good; "null" is until it is revoked. */
export const LIFETIMES = [
  { value: "30", label: "30 days" },
  { value: "90", label: "90 days" },
  { value: "365", label: "a year" },
  { value: "null", label: "until it is revoked" },
] as const;
export const DEFAULT_LIFETIME = "90";

export const daysOf = (lifetime: string): number | null => (lifetime === "null" ? null : Number(lifetime));

export function isExpired(token: Token, now: Date): boolean {
  return token.expires_at !== null && new Date(token.expires_at) <= now;
}

/** What it reaches: all of one's projects or one of them, and whether it changes anything. */
export function reachInWords(token: Token, projects: readonly { id: string; name: string }[]): string {
  const project = projects.find(({ id }) => id === token.project_id);
  const where = token.project_id === null ? "all your projects" : project?.name ?? "a project that you are no member of";
  return token.read_only ? `${where}, reading only` : where;
}

/** Commands that work as they stand once the secret and the ids are put in. */
export function examples(origin: string): { title: string; code: string }[] {
  return [
    {
      title: "Upload a zip of DICOM files",
      code: [
        `curl -H "Authorization: Bearer $DELINEATE_TOKEN" -F files=@scans.zip \\`,
        `  ${origin}/api/projects/$PROJECT/uploads`,
      ].join("\n"),
    },
    {
      title: "Read a series over DICOMweb; clients that know only Basic give the token as the password",
      code: [
        `curl -u token:$DELINEATE_TOKEN \\`,
        `  ${origin}/dicomweb/$PROJECT/studies/$STUDY_UID/series/$SERIES_UID/metadata`,
      ].join("\n"),
    },
  ];
}
