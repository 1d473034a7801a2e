import { DatabaseSync } from "node:sqlite";
import { dirname } from "node:path";
import { ServerError } from "../errors.ts";
import { dataRefused } from "./folder.ts";

/** Changes of the schema, each applied once, in order; released ones never change. */
const MIGRATIONS: readonly string[] = [
  `
  CREATE TABLE adapters (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    files TEXT NOT NULL,
    facts TEXT NOT NULL,
    inspection TEXT,
    problem TEXT
  ) STRICT;
  CREATE TABLE calibrations (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    created TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    rows INTEGER NOT NULL
  ) STRICT;
  CREATE TABLE merges (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    request TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    created TEXT NOT NULL,
    started TEXT,
    finished TEXT,
    interruptions INTEGER NOT NULL DEFAULT 0,
    result TEXT,
    error TEXT
  ) STRICT;
  CREATE INDEX merges_by_state ON merges (state, sequence);
  CREATE TABLE inputs (
    merge TEXT NOT NULL REFERENCES merges (id) ON DELETE CASCADE,
    input TEXT NOT NULL,
    PRIMARY KEY (merge, input)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX inputs_by_input ON inputs (input);
  `,
  `ALTER TABLE adapters ADD COLUMN options TEXT NOT NULL DEFAULT '{}';`,
];

function busy(path: string): ServerError {
  return new ServerError(
    500,
    "data_in_use",
    `another server works on the data folder of ${path}`,
    "stop the other server, or choose another folder with --data",
    path,
  );
}

/**
 * Opens the database and brings its schema up to date. The file stays locked until it is closed or the process ends, so
 * that two servers never work on one data folder.
 *
 * @throws {ServerError} `data_in_use`, `data_too_new`, `data_unusable`
 */
export function openDatabase(path: string): DatabaseSync {
  const database = new DatabaseSync(path, { enableForeignKeyConstraints: true, open: false });
  try {
    database.open();
    // Exclusive before WAL: then the log needs no shared memory file, and the lock dies with the process.
    database.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    migrate(database, path);
    return database;
  } catch (error) {
    if (database.isOpen) database.close();
    const text = error instanceof Error ? error.message : "";
    if (/database is locked/.test(text)) throw busy(path);
    if (/unable to open|readonly database|not a database/.test(text)) {
      throw dataRefused(dirname(path), `its loom.sqlite cannot be used (${text})`);
    }
    throw error;
  }
}

function migrate(database: DatabaseSync, path: string): void {
  transaction(database, () => {
    const { user_version: version } = database.prepare("PRAGMA user_version").get() as {
      user_version: number;
    };
    if (version > MIGRATIONS.length) {
      throw new ServerError(
        500,
        "data_too_new",
        `${path} was written by a newer version of this program`,
        "update this program, or choose another folder with --data",
        path,
      );
    }
    for (const script of MIGRATIONS.slice(version)) database.exec(script);
    // Written even when nothing changed: it takes the lock.
    database.exec(`PRAGMA user_version = ${MIGRATIONS.length}`);
  });
}

/** Runs `body` in a transaction: all of its changes are made, or none. */
export function transaction<T>(database: DatabaseSync, body: () => T): T {
  database.exec("BEGIN IMMEDIATE");
  try {
    const result = body();
    database.exec("COMMIT");
    return result;
  } catch (error) {
    if (database.isTransaction) database.exec("ROLLBACK");
    throw error;
  }
}
