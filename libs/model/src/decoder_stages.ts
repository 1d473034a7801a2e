import {
  type Architecture,
  linearName,
  type LinearRole,
  moduleShape,
  rolesOf,
  sharersOf,
  writesPlainly,
} from "./architecture.ts";
import type { Site, Stage } from "./base_model.ts";
import type { DecoderConfig } from "./config.ts";

/** The four stages of every decoder layer: which modules run, and what the stage is called after the layer's prefix. */
export const LAYER_STAGES = [
  { kind: "attention_in", name: "self_attn.qkv", roles: ["query", "key", "value"] },
  { kind: "attention_out", name: "self_attn.o", roles: ["output"] },
  { kind: "mlp_in", name: "mlp.gate_up", roles: ["gate", "up"] },
  { kind: "mlp_out", name: "mlp.down", roles: ["down"] },
] as const satisfies readonly { kind: string; name: string; roles: readonly LinearRole[] }[];

/** All stages of a decoder. */
export function decoderStages(architecture: Architecture, config: DecoderConfig): Stage[] {
  return Array.from(
    { length: config.layers },
    (_, layer) =>
      LAYER_STAGES.map(({ name, roles }, place): Stage => ({
        index: layer * LAYER_STAGES.length + place,
        name: architecture.layerPrefix(layer) + name,
        sites: firstRoles(architecture, roles).map((role) => makeSite(architecture, config, layer, role)),
      })),
  ).flat();
}

/** One role of each module. */
export function firstRoles(architecture: Architecture, roles: readonly LinearRole[]): LinearRole[] {
  const existing = new Set(rolesOf(architecture));
  return roles.filter((role) => existing.has(role) && sharersOf(architecture, role)[0] === role);
}

function makeSite(architecture: Architecture, config: DecoderConfig, layer: number, role: LinearRole): Site {
  const [outFeatures, inFeatures] = moduleShape(architecture, config, role);
  return {
    module: linearName(architecture, layer, role),
    inFeatures,
    outFeatures,
    writesStream: (role === "output" || role === "down") && writesPlainly(architecture, role),
  };
}
