// What may be done to a job, for who may do it: buttons, what they ask before, and what the server says to it.

import { Refused, get, post } from "./api.js";
import { h, say, show } from "./dom.js";
import { plural, whole } from "./format.js";

// The same question answered once more does nothing more.
function requestId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

const UNDER_WAY = ["QUEUED", "STARTING", "RUNNING"];

// The buttons of a job page. `known` and `checkpoints` give what the page knows by now; `refresh` asks for what is new.
export function acts({ context, known, checkpoints, refresh }) {
  const refusal = h("div", { class: "notice", "data-tone": "bad", role: "alert", hidden: true });
  const buttons = {
    pause: h("button", { type: "button", onclick: () => act("pause") }, "Pause"),
    resume: h("button", { type: "button", class: "primary", onclick: () => act("resume") }, "Resume"),
    extend: h("button", { type: "button", onclick: extend }, "Extend…"),
    fork: h("button", { type: "button", onclick: fork }, "Fork…"),
    rewind: h("button", { type: "button", onclick: rewind }, "Rewind…"),
    cancel: h("button", { type: "button", class: "danger", onclick: cancel }, "Cancel…"),
  };
  const node = h("div", { class: "actions" }, Object.values(buttons));

  // Do something of which the server may say no; what it says stands above the facts then.
  async function attempt(something) {
    refusal.hidden = true;
    for (const button of Object.values(buttons)) button.disabled = true;
    try {
      await something();
    } catch (error) {
      if (!(error instanceof Refused || error instanceof TypeError || error.name === "TimeoutError")) throw error;
      say(refusal, error instanceof Refused ? error.message : "The server does not answer, so this may not have been done; look again when it does.");
      refusal.hidden = false;
    } finally {
      for (const button of Object.values(buttons)) button.disabled = false;
    }
  }

  // Let the server do something to the job: its answer. `choices` that are empty are left to it.
  function order(word, choices = {}) {
    const query = new URLSearchParams(Object.entries(choices).filter(([, value]) => value !== ""));
    return post(`api/jobs/${encodeURIComponent(known().id)}/${word}?${query}`);
  }

  function act(word, choices) {
    return attempt(async () => {
      await order(word, choices);
      await refresh();
    });
  }

  function cancel() {
    context.ask({
      title: `Cancel ${known().name}?`,
      text: "It ends as it stands. Its checkpoints are kept.",
      confirm: "Cancel the job",
      isDanger: true,
      done: () => act("cancel"),
    });
  }

  function epochsNow() {
    return Math.ceil(known().last_step / Math.max(1, known().steps_per_epoch));
  }

  function extend() {
    const epochs = epochsNow();
    const request = requestId();
    context.ask({
      title: `Extend ${known().name}`,
      text: `It ends after ${plural(epochs, "epoch")} now. After how many shall it end, in all?`,
      fields: [{ name: "epochs", label: "Epochs in all", type: "number", value: epochs * 2, min: epochs + 1, step: 1, required: true }],
      confirm: "Extend",
      done: (choices) => act("extend", { ...choices, request }),
    });
  }

  // The checkpoints that may be gone on from, the newest first.
  function places() {
    return checkpoints().filter((step) => step <= known().step).reverse().map((step) => ({ value: step, text: `step ${whole(step)}` }));
  }

  function fork() {
    attempt(async () => {
      const { numbers } = await get(`api/jobs/${encodeURIComponent(known().id)}/numbers`);
      const request = requestId();
      context.ask({
        title: `Fork ${known().name}`,
        text: `A new job goes on from a checkpoint of this one, which stays as it is. It ends after ${plural(epochsNow(), "epoch")} as this one does, and has the same numbers, where a field is left empty.`,
        fields: [
          { name: "name", label: "Name", value: `${known().name.slice(0, 96)}-fork-${request.slice(0, 6)}`, maxlength: 128, required: true, spellcheck: "false" },
          { name: "step", label: "From", options: places() },
          { name: "epochs", label: "Epochs in all", type: "number", min: 1, step: 1, placeholder: epochsNow() },
          ...Object.entries(numbers).sort(([a], [b]) => (b === "lr") - (a === "lr") || a.localeCompare(b)).map(([name, value]) => ({ name: `set.${name}`, label: name, type: "number", step: "any", placeholder: value ?? "by a schedule" })),
        ],
        confirm: "Fork",
        done: (choices) => attempt(async () => {
          const made = await order("fork", { ...choices, request });
          location.hash = `#/jobs/${made.id}`;
        }),
      });
    });
  }

  function rewind() {
    const request = requestId();
    context.ask({
      title: `Rewind ${known().name}?`,
      text: "It goes on from the checkpoint that you choose. Its later checkpoints, and the values recorded since, are gone then. To keep them, fork it instead.",
      fields: [{ name: "step", label: "Back to", options: places() }],
      confirm: "Rewind the job",
      isDanger: true,
      done: (choices) => act("rewind", { ...choices, request }),
    });
  }

  // Show what may be done as the job stands.
  function update() {
    const { state } = known();
    show(node, context.mayAct);
    show(buttons.pause, UNDER_WAY.includes(state));
    show(buttons.resume, state === "PAUSED");
    show(buttons.extend, [...UNDER_WAY, "PAUSED", "SUCCEEDED"].includes(state));
    show(buttons.fork, places().length > 0);
    show(buttons.rewind, places().length > 0);
    show(buttons.cancel, [...UNDER_WAY, "PAUSED"].includes(state));
  }

  return { node, refusal, update };
}
