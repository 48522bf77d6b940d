/** A change on the server: what went stale is fetched anew, a refusal is shown. */
import { useMutation, useQueryClient, type QueryKey } from "@tanstack/react-query";
import { showRefusal } from "./refusals";

export function useAct<Input, Output>(
  act: (input: Input) => Promise<Output>,
  { stale, onDone }: { stale: readonly QueryKey[]; onDone?: (output: Output, input: Input) => void },
) {
  const queryClient = useQueryClient();
  return useMutation({
    mutationFn: act,
    onSuccess: (output, input) => onDone?.(output, input),
    onError: showRefusal,
    onSettled: () => Promise.all(stale.map((queryKey) => queryClient.invalidateQueries({ queryKey }))),
  });
}
