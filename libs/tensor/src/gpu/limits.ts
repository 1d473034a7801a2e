/** Most workgroups along one axis of a dispatch, by the WebGPU standard. */
export const MAX_WORKGROUPS = 65535;
