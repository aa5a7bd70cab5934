/** What the page can make the server do. Each is one request; the watch then shows what came of it. */
import { path, progress, request } from "./api";
import type { BanLifted, Deployed, Plan, Pruned, PullProgress, Report, StackFile } from "./wire";

export function check(stack: string, file: StackFile, signal: AbortSignal): Promise<Report> {
  const query = stack === "" ? "" : `?${new URLSearchParams({ name: stack })}`;
  return request("POST", `/v1/stacks/check${query}`, file, signal);
}

export function plan(stack: string, file: StackFile, signal: AbortSignal): Promise<Plan> {
  return request("POST", `${path("stacks", stack)}/plan`, file, signal);
}

export function deploy(stack: string, file: StackFile): Promise<Deployed> {
  return request("PUT", path("stacks", stack), file);
}

export function remove(stack: string): Promise<void> {
  return request("DELETE", path("stacks", stack));
}

export function revert(stack: string, to: number): Promise<Deployed> {
  return request("POST", `${path("stacks", stack)}/revert`, { to });
}

export function scale(stack: string, service: string, replicas: number): Promise<void> {
  return request("POST", `${path("services", stack, service)}/scale`, { replicas });
}

export function restart(stack: string, service: string): Promise<void> {
  return request("POST", `${path("services", stack, service)}/restart`);
}

export function kill(instance: string): Promise<void> {
  return request("POST", `${path("instances", instance)}/kill`);
}

export function liftBan(client: string): Promise<BanLifted> {
  return request("DELETE", path("gateway", "bans", client));
}

export function pull(reference: string, signal: AbortSignal): AsyncGenerator<PullProgress[]> {
  return progress("/v1/images/pull", { reference }, signal);
}

export function prune(): Promise<Pruned> {
  return request("POST", "/v1/images/prune");
}
