// page.js - the page of the server: one conversation, the live load of the experts, and the
// requests in flight. Everything it knows comes from the server's documented endpoints; text
// from the model is only ever set as text, never as markup.
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const state = {
    model: null, // as /v1/models names it
    turns: [], // [{role, content}] of the chat
    abort: null, // of the generation in flight
    before: null, // the last counts of the experts, flat
    recent: null, // what was added lately, flat, fading
    shape: [0, 0], // layers, experts
    at: [0, 0], // the cell that is described
    timer: null, // of the next question to the server; null while it is asked
  };

  function headers() {
    const key = $("key").value;
    const h = { "Content-Type": "application/json" };
    if (key) h.Authorization = "Bearer " + key;
    return h;
  }

  // JSON of a path; throws an Error with the server's own sentence.
  async function ask(path, options = {}) {
    const answer = await fetch(path, { headers: headers(), ...options });
    const text = await answer.text();
    let body = null;
    try { body = text ? JSON.parse(text) : null; } catch { /* not JSON: told below */ }
    if (!answer.ok) {
      const e = new Error(body && body.error ? body.error.message : `${path}: ${answer.status}`);
      e.status = answer.status;
      throw e;
    }
    return body;
  }

  // ------------------------------------------------------------------ text
  function turn(role, text, kind = "") {
    const p = document.createElement("p");
    const who = document.createElement("b");
    const what = document.createElement("span");
    p.className = "turn " + kind;
    who.textContent = role;
    what.textContent = text;
    p.append(who, what);
    $("log").append(p);
    p.scrollIntoView({ block: "end" });
    return what;
  }

  function number(id) {
    const x = $(id).value;
    return x === "" ? undefined : Number(x);
  }

  function body(prompt) {
    const common = {
      model: state.model, stream: true, stream_options: { include_usage: true },
      max_tokens: number("max-tokens"), temperature: number("temperature"),
      top_p: number("top-p"), repetition_penalty: number("repetition"), seed: number("seed"),
    };
    return $("mode").value === "chat" ? { ...common, messages: state.turns } : { ...common, prompt };
  }

  // Events of a stream: the JSON of each "data:" line until [DONE].
  async function* events(answer) {
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      const lines = held.split(/\r?\n/);
      held = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") return;
        yield JSON.parse(data);
      }
    }
  }

  // Shows the stream in `out`; returns its text. Speed counts tokens after the first.
  async function read(answer, out) {
    let text = "", first = 0, chunks = 0, usage = null;
    const began = performance.now();
    for await (const e of events(answer)) {
      if (e.error) throw new Error(e.error.message);
      if (e.usage) usage = e.usage;
      const c = e.choices && e.choices[0];
      const more = c ? (c.delta ? c.delta.content : c.text) || "" : "";
      if (!more) continue;
      if (!first) first = performance.now();
      chunks++;
      text += more;
      out.append(more);
      $("log").scrollTop = $("log").scrollHeight;
      speed(chunks, first, first - began);
    }
    if (usage && first) speed(usage.completion_tokens, first, first - began, usage);
    return text;
  }

  function speed(n, first, wait, usage) {
    const s = (performance.now() - first) / 1000;
    const rate = n > 1 && s > 0 ? `${((n - 1) / s).toFixed(1)} tokens/s, ` : "";
    const ends = usage ? `, ${usage.prompt_tokens} + ${usage.completion_tokens} tokens` : "";
    $("speed").textContent = `${rate}first after ${wait.toFixed(0)} ms${ends}`;
  }

  function busy(on) {
    $("send").disabled = on;
    $("stop").disabled = !on;
    $("log").setAttribute("aria-busy", String(on));
  }

  async function send() {
    const prompt = $("prompt").value;
    const chat = $("mode").value === "chat";
    if (!prompt || state.abort) return;
    state.abort = new AbortController();
    busy(true);
    tickSoon();
    let out;
    if (chat) {
      state.turns.push({ role: "user", content: prompt });
      turn("you", prompt);
      out = turn("model", "");
      $("prompt").value = "";
    } else {
      out = turn("completion", "", "code");
      const given = document.createElement("span");
      given.className = "prompted";
      given.textContent = prompt;
      out.append(given);
    }
    try {
      const path = chat ? "/v1/chat/completions" : "/v1/completions";
      const answer = await fetch(path, { method: "POST", headers: headers(),
        body: JSON.stringify(body(prompt)), signal: state.abort.signal });
      if (!answer.ok) throw new Error((await answer.json()).error.message);
      const text = await read(answer, out);
      if (chat) state.turns.push({ role: "assistant", content: text });
    } catch (e) {
      // An answer that was stopped stays in the conversation as far as it came.
      if (e.name === "AbortError") {
        if (chat) state.turns.push({ role: "assistant", content: out.textContent });
      } else {
        if (chat) state.turns.pop();
        turn("error", e.message, "wrong");
      }
    }
    state.abort = null;
    busy(false);
    $("prompt").focus();
  }

  function mode() {
    const chat = $("mode").value === "chat";
    $("prompt-label").textContent = chat ? "Message" : "Prompt";
    $("prompt").placeholder = chat ? "Ask something" : "def fibonacci(n):";
  }

  // ------------------------------------------------------------------ experts
  // Tokens of each cell: since the server's start, or lately.
  function loads() {
    return $("live").checked ? state.recent : state.before;
  }

  function take(e) {
    const flat = e.counts.flat();
    if (!state.before || state.before.length !== flat.length) {
      state.before = flat;
      state.recent = flat.map(() => 0);
    }
    state.recent = flat.map((n, i) => state.recent[i] * 0.7 + (n - state.before[i]));
    state.before = flat;
    state.shape = [e.counts.length, e.counts.length ? e.counts[0].length : 0];
  }

  // From dark over the page's teal to pale yellow; monotone in lightness.
  function colour(x) {
    return [20 + 235 * x * x, 30 + 210 * x, 45 + 120 * Math.sqrt(x) - 60 * x];
  }

  function draw() {
    const [layers, experts] = state.shape, values = loads();
    const canvas = $("map");
    if (!layers || !experts || !values) return;
    canvas.width = experts;
    canvas.height = layers;
    canvas.style.aspectRatio = `${experts} / ${Math.max(layers, experts / 6)}`;
    const context = canvas.getContext("2d");
    const image = context.createImageData(experts, layers);
    for (let l = 0; l < layers; l++) {
      const row = values.slice(l * experts, (l + 1) * experts);
      const most = Math.max(...row, 1e-9);
      row.forEach((n, e) => {
        const [r, g, b] = colour(n / most);
        image.data.set([r, g, b, 255], 4 * (l * experts + e));
      });
    }
    context.putImageData(image, 0, 0);
    describe();
  }

  function describe() {
    const [layers, experts] = state.shape, values = loads();
    if (!layers || !values) return;
    const [l, e] = state.at;
    const row = values.slice(l * experts, (l + 1) * experts);
    const sum = row.reduce((a, b) => a + b, 0);
    const share = sum ? (100 * row[e] / sum).toFixed(1) : "0.0";
    const busiest = row.indexOf(Math.max(...row));
    const text = `layer ${l}, expert ${e}: ${share} % of the layer's choices; busiest: expert ${busiest}`;
    if ($("cell").textContent !== text) $("cell").textContent = text;
  }

  function point(l, e) {
    const [layers, experts] = state.shape;
    state.at = [Math.min(Math.max(l, 0), layers - 1), Math.min(Math.max(e, 0), experts - 1)];
    describe();
  }

  $("map").addEventListener("mousemove", (m) => {
    const box = $("map").getBoundingClientRect(), [layers, experts] = state.shape;
    point(Math.floor((m.clientY - box.top) / box.height * layers),
      Math.floor((m.clientX - box.left) / box.width * experts));
  });
  $("map").addEventListener("keydown", (k) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[k.key];
    if (!step || !state.shape[0]) return;
    k.preventDefault();
    point(state.at[0] + step[0], state.at[1] + step[1]);
  });

  // ------------------------------------------------------------------ requests
  function cells(r) {
    const age = r.age_ms < 10000 ? `${r.age_ms} ms` : `${(r.age_ms / 1000).toFixed(0)} s`;
    return [r.id, r.state, r.prompt_tokens, r.cached_tokens, r.generated_tokens, age];
  }

  // Rows are kept while their request lives, so that a button that has the focus keeps it.
  function list(requests) {
    const rows = $("rows");
    const old = new Map([...rows.children].map((tr) => [tr.dataset.id, tr]));
    const now = requests.map((r) => {
      const tr = old.get(r.id) || row(r.id);
      cells(r).forEach((text, i) => { tr.cells[i].textContent = text; });
      return tr;
    });
    if (!now.length && rows.children.length === 1 && !rows.firstChild.dataset.id) return;
    if (now.length) rows.replaceChildren(...now);
    else rows.innerHTML = "<tr><td colspan=7 class=quiet>none</td></tr>";
  }

  function row(id) {
    const tr = document.createElement("tr");
    tr.dataset.id = id;
    for (let i = 0; i < 7; i++) tr.insertCell();
    const stop = document.createElement("button");
    stop.textContent = "Cancel";
    stop.setAttribute("aria-label", `cancel ${id}`);
    stop.addEventListener("click", () => {
      ask("/v1/requests/" + encodeURIComponent(id), { method: "DELETE" }).catch((e) => turn("error", e.message, "wrong"));
    });
    tr.cells[6].append(stop);
    return tr;
  }

  function numbers(metrics) {
    const wanted = [
      ["running", "num_requests_running"], ["waiting", "num_requests_waiting"],
      ["cache used", "kv_cache_usage_perc"], ["prompt tokens", "prompt_tokens_total"],
      ["new tokens", "generation_tokens_total"], ["preempted", "num_preemptions_total"],
    ];
    $("numbers").replaceChildren(...wanted.map(([name, key]) => {
      const found = metrics.match(new RegExp(`^polymath:${key}(?:{[^}]*})? (\\S+)`, "m"));
      const item = document.createElement("li"), label = document.createElement("span");
      const x = found ? Number(found[1]) : NaN;
      label.textContent = name;
      item.append(label, Number.isNaN(x) ? "-" :
        key.endsWith("perc") ? (100 * x).toFixed(1) + " %" : x.toLocaleString("en"));
      return item;
    }));
  }

  async function metrics() {
    const answer = await fetch("/metrics", { headers: headers() });
    if (answer.ok) numbers(await answer.text());
  }

  // ------------------------------------------------------------------ the clock
  async function connect() {
    const m = (await ask("/v1/models")).data[0];
    state.model = m.id;
    const f = m.meta;
    const experts = f.n_expert ? `, ${f.n_expert} experts, ${f.n_expert_per_token} of them a token` : "";
    $("model").textContent = `${m.id} on ${f.device}, context ${m.max_model_len}${experts}`;
    $("mode").value = f.chat ? "chat" : "complete";
    $("mode").options[0].disabled = !f.chat;
    mode();
  }

  // Asks the server again and again, more often while this page has a generation in flight.
  async function tick() {
    let wait = state.abort ? 250 : 1000;
    state.timer = null;
    try {
      if (!state.model) await connect();
      if (!document.hidden) {
        const [e, r] = await Promise.all([ask("/experts"), ask("/v1/requests"), metrics()]);
        take(e);
        draw();
        list(r.requests);
      }
      $("health").textContent = "ready";
      $("health").className = "quiet";
    } catch (e) {
      const told = e.status === 401 ? "an API key is wanted: see Settings" : e.message;
      if ($("health").textContent !== told) $("health").textContent = told;
      $("health").className = "wrong";
      wait = 3000;
    }
    state.timer = setTimeout(tick, wait);
  }

  function tickSoon() {
    if (!state.timer) return; // it is asking right now
    clearTimeout(state.timer);
    state.timer = setTimeout(tick, 100);
  }

  $("form").addEventListener("submit", (e) => { e.preventDefault(); send(); });
  $("prompt").addEventListener("keydown", (k) => {
    if (k.key === "Enter" && (k.ctrlKey || k.metaKey)) { k.preventDefault(); send(); }
  });
  $("stop").addEventListener("click", () => { if (state.abort) state.abort.abort(); });
  $("clear").addEventListener("click", () => { state.turns = []; $("log").replaceChildren(); $("speed").textContent = ""; });
  $("mode").addEventListener("change", mode);
  $("live").addEventListener("change", draw);
  mode();
  tick();
})();
