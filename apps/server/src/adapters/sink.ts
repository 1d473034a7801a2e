/** Takes the content of one uploaded file. */
export interface FileSink {
  write(chunk: Uint8Array): Promise<void>;
  end(): Promise<void>;
}

/** Takes the files of one upload, whatever they came in: a form, an archive or the request's body itself. */
export interface UploadSink {
  /** Starts a file; undefined where it is not wanted and its content can be passed over. */
  begin(path: string): Promise<FileSink | undefined>;
}

/** Bytes on their way in. */
export type Chunks = AsyncIterable<Uint8Array>;
