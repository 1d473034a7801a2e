/** The server's API. Every failure is an {@link ApiError} with the four fields that all errors have. */

export class ApiError extends Error {
  constructor(status, { code, message, fix, where }) {
    super(message);
    this.status = status;
    this.error = { code, message, fix, where };
  }
}

const UNREACHABLE = {
  code: "unreachable",
  message: "The server does not answer.",
  fix: "See whether it still runs, then try again.",
  where: "",
};

async function failure(response) {
  const body = await response.json().catch(() => undefined);
  return new ApiError(
    response.status,
    body?.error ?? { ...UNREACHABLE, message: `The server answered ${response.status}.` },
  );
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new ApiError(0, UNREACHABLE);
  }
  if (!response.ok) throw await failure(response);
  return response.status === 204 ? undefined : await response.json();
}

const sendJson = (path, value) =>
  request(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(value),
  });
const remove = (path) => request(path, { method: "DELETE" });

export const api = {
  health: () => request("/api/health"),
  methods: () => request("/api/methods"),
  document: () => request("/openapi.json"),
  models: () => request("/api/models"),
  adapters: () => request("/api/adapters"),
  adapter: (id) => request(`/api/adapters/${id}`),
  deleteAdapter: (id) => remove(`/api/adapters/${id}`),
  calibrations: () => request("/api/calibrations"),
  uploadCalibration: (file) =>
    request(`/api/calibrations?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file }),
  merges: (before) => request(`/api/merges${before ? `?before=${before}` : ""}`),
  merge: (id) => request(`/api/merges/${id}`),
  startMerge: (recipe) => sendJson("/api/merges", recipe),
  deleteMerge: (id) => remove(`/api/merges/${id}`),
  openSession: (token) => sendJson("/session", { token }),
  session: () => request("/session"),
};

/** Fetches an archive that is made when it is asked for, which can fail. */
export async function fetchArchive(id, format) {
  const response = await fetch(`/api/merges/${id}/archive.zip?format=${format}`).catch(() => {
    throw new ApiError(0, UNREACHABLE);
  });
  if (!response.ok) throw await failure(response);
  const [, name] = /filename="([^"]+)"/.exec(response.headers.get("content-disposition") ?? "") ?? [];
  return { name: name ?? "merged.zip", blob: await response.blob() };
}

/**
 * Uploads one adapter and tells how far it is; fetch() cannot tell that.
 *
 * @param upload what `adaptersOf` gives: a name and files with paths; `reading` says how it is to be read, for the address
 * @param onProgress gets a number from 0 to 1
 */
export function uploadAdapter({ name, files, reading = "" }, onProgress) {
  const single = files.length === 1 ? files[0].file : undefined;
  const query = `?name=${encodeURIComponent(single ? single.name : name)}${reading}`;
  const request = new XMLHttpRequest();
  request.open("POST", `/api/adapters${query}`);
  request.responseType = "json";
  return new Promise((resolve, reject) => {
    request.upload.onprogress = ({ loaded, total }) => onProgress(total ? loaded / total : 0);
    request.onerror = () => reject(new ApiError(0, UNREACHABLE));
    request.onload = () => {
      if (request.status < 300) resolve(request.response);
      else reject(new ApiError(request.status, request.response?.error ?? UNREACHABLE));
    };
    if (single) {
      request.setRequestHeader(
        "content-type",
        /\.zip$/i.test(single.name) ? "application/zip" : "application/octet-stream",
      );
      request.send(single);
    } else {
      const form = new FormData();
      for (const { path, file } of files) form.append("file", file, path);
      request.send(form);
    }
  });
}
