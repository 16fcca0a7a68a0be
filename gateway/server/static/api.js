// The gateway's answers to GET, as JSON, and posts without a body. Paths are relative, so that the page also works behind a prefix.

/** `retry`: after how many seconds the gateway says that it may be tried again, 0 when it does not. */
export class ApiError extends Error {
  constructor(status, detail, retry = 0) {
    super(detail);
    this.status = status;
    this.retry = retry;
  }
}

/** Posts nothing but headers. Raises ApiError as getJson does, with the words of the answer. */
export async function post(path, headers = {}) {
  let response, text = "";
  try {
    response = await fetch(path, { method: "POST", headers, cache: "no-store", redirect: "error", signal: AbortSignal.timeout(10_000) });
    text = (await response.text()).trim();
  } catch {
    throw new ApiError(0, "no answer");
  }
  if (!response.ok) throw new ApiError(response.status, text.slice(0, 300) || String(response.status), Number(response.headers.get("Retry-After")) || 0);
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
