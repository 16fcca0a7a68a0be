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
  const limit = AbortSignal.timeout(timeout);
  let response;
  try {
    response = await fetch(query.size ? `${path}?${query}` : path, { cache: "no-store", signal: signal ? AbortSignal.any([signal, limit]) : limit });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "no answer");
  }
  if (!response.ok && !accept.includes(response.status)) throw new ApiError(response.status, `${response.status} ${response.statusText}`);
  try {
    return { body: await response.json(), truncated: response.headers.get("X-Truncated") === "true" };
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, "the answer is not JSON");
  }
}
