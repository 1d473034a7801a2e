const KIB = 1024;
const MIB = 1024 * KIB;
const GIB = 1024 * MIB;

/** How much the server takes on, and for how long it waits. */
export interface Limits {
  /** Bytes of one upload, unpacked. */
  readonly uploadBytes: number;
  /** Bytes of a safetensors header. */
  readonly headerBytes: number;
  /** Bytes of a configuration or index file of an adapter. */
  readonly configBytes: number;
  /** Bytes of a calibration file. */
  readonly calibrationBytes: number;
  /** Bytes of all headers of an HTTP request. */
  readonly httpHeaderBytes: number;
  /** Bytes of a JSON request. */
  readonly requestBytes: number;
  /** Files of one upload. */
  readonly filesPerUpload: number;
  /** Bytes of everything in the data folder's stores together. */
  readonly storeBytes: number;
  readonly adapters: number;
  readonly calibrations: number;
  /** Merges that wait. */
  readonly queue: number;
  /** Merges that are kept, finished ones included. */
  readonly merges: number;
  readonly adaptersPerMerge: number;
  /** Merges that run at a time. */
  readonly jobs: number;
  /** Connections at a time. */
  readonly connections: number;
  /** Uploads at a time. */
  readonly uploads: number;
  /** Event streams at a time. */
  readonly streams: number;
  /** Crashes of the server that a merge may be in the middle of before it is given up. */
  readonly interruptions: number;
  /** Seconds without a byte after which an upload is given up, and a connection that owes or is owed something ended. */
  readonly idleSeconds: number;
  /** Seconds after which an upload is given up however steadily it drips. */
  readonly uploadSeconds: number;
}

export const DEFAULT_LIMITS: Limits = {
  uploadBytes: 4 * GIB,
  headerBytes: 25 * MIB,
  configBytes: 16 * MIB,
  calibrationBytes: 64 * MIB,
  httpHeaderBytes: 32 * KIB,
  requestBytes: MIB,
  filesPerUpload: 64,
  storeBytes: 256 * GIB,
  adapters: 1000,
  calibrations: 1000,
  queue: 100,
  merges: 10_000,
  adaptersPerMerge: 32,
  jobs: 1,
  connections: 1024,
  uploads: 8,
  streams: 256,
  interruptions: 3,
  idleSeconds: 30,
  uploadSeconds: 3600,
};

/** Limits that may be 0, which then closes what they bound; with 0 of anything else the server could do nothing. */
const MAY_BE_ZERO: ReadonlySet<keyof Limits> = new Set([
  "adapters",
  "calibrations",
  "interruptions",
  "merges",
  "storeBytes",
]);

/** The least that a limit can be. */
export const leastOf = (limit: keyof Limits): 0 | 1 => MAY_BE_ZERO.has(limit) ? 0 : 1;

/** What each limit means, for `--help`. */
export const LIMIT_HELP: Readonly<Record<keyof Limits, string>> = {
  uploadBytes: "bytes of one upload, unpacked",
  headerBytes: "bytes of a safetensors header",
  configBytes: "bytes of a configuration or index file of an adapter",
  calibrationBytes: "bytes of a calibration file",
  httpHeaderBytes: "bytes of all headers of an HTTP request",
  requestBytes: "bytes of a JSON request",
  filesPerUpload: "files of one upload",
  storeBytes: "bytes of all that is kept",
  adapters: "adapters that are kept",
  calibrations: "calibration files that are kept",
  queue: "merges that wait",
  merges: "merges that are kept",
  adaptersPerMerge: "adapters of one merge",
  jobs: "merges that run at a time",
  connections: "connections at a time",
  uploads: "uploads at a time",
  streams: "event streams at a time",
  interruptions: "crashes that a merge survives before it is given up",
  idleSeconds: "seconds that an upload, a download or an unused connection may stand still",
  uploadSeconds: "seconds that an upload may take",
};
