// The gateway's answers to GET, as JSON. Paths are relative, so that the page also works behind a prefix.

export class ApiError extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/**
 * Fetches JSON from `path` with `params` (undefined ones are left out). Raises ApiError for an answer that is not
 * 2xx (status 0 for no answer within `timeout` ms or at all) and AbortError when `signal` says so.
 */
export async function getJson(path, { params = {}, signal, timeout = 10_000, accept = [] } = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, v]) => v !== undefined && v !== null));
  const stop = new AbortController(), cancel = () => stop.abort();
  const timer = setTimeout(cancel, timeout);
  signal?.addEventListener("abort", cancel, { once: true });
  try {
    return await answer(query.toString() ? `${path}?${query}` : path, stop.signal, accept);
  } catch (error) {
    if (error instanceof ApiError || signal?.aborted) throw error;
    throw new ApiError(0, "no answer");
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", cancel);
  }
}

async function answer(address, signal, accept) {
  const response = await fetch(address, { cache: "no-store", signal });
  if (!response.ok && !accept.includes(response.status)) throw new ApiError(response.status, `${response.status} ${response.statusText}`.trim());
  const text = await response.text();
  try {
    return { body: JSON.parse(text), truncated: response.headers.get("X-Truncated") === "true" };
  } catch {
    throw new ApiError(0, "the answer is not JSON");
  }
}
