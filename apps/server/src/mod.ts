/** Merging adapters by HTTP: the API, its web page, and the queue behind them. */
export { type RunningServer, type ServerOptions, startServer } from "./server.ts";
export { type OpenServices, openServices, type ServiceOptions } from "./open_services.ts";
export { DEFAULT_LIMITS, type Limits } from "./limits.ts";
