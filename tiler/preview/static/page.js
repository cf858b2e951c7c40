// The page around the picture: state every second, and the controls.
import { Player, WAYS } from "/player.js";

const LAYOUTS = { configured: "As configured", grid: "Grid", spotlight: "Spotlight", pip: "Picture in picture" };
const OVERLAYS = { boxes: "Boxes", labels: "Labels", trails: "Trails", titles: "Titles", fps: "Rates", clock: "Clock" };
const KEYS = { g: "grid", s: "spotlight", p: "pip", c: "configured" };
const TOGGLES = { b: "boxes", l: "labels", t: "trails" };
const $ = (id) => document.getElementById(id);

let state = null, rate = null, counted = { frames: 0, at: 0 }, reachable = true;
let note = { text: "", good: false, untilMs: 0 };
let sure = { source: null, fromMs: 0, untilMs: 0 }, refused = { source: null, text: "", untilMs: 0 };

const asked = new URLSearchParams(location.search).get("way");
const player = new Player($("screen"), Object.hasOwn(WAYS, asked) ? asked : undefined);
window.player = player;

// The API

async function call(method, path, body, refuse = say) {
  const options = { method };
  if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
  try {
    const response = await fetch(path, options);
    if (response.status === 401) { location.reload(); return; }
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    reachable = true;
    if (answer.tiles) show(answer);
    return answer;
  } catch (error) {
    if (error instanceof TypeError) reachable = false; // no answer at all
    else refuse(error.message);
    showStream();
  }
}

function say(text, good = false) {
  note = { text, good, untilMs: performance.now() + 4000 };
  showStream();
}

const large = () => state.tiles.reduce((a, b) => (b.width * b.height > a.width * a.height * 1.2 ? b : a));
const several = () => state.tiles.some((tile) => tile.width * tile.height * 1.2 < large().width * large().height);

function promote(number) {
  if (!state || number >= state.tiles.length) return;
  const again = several() && large().tile === number;
  if (again) call("PUT", "/api/layout", { layout: "configured" });
  else call("POST", `/api/tiles/${number}/promote`);
}

const arrange = (layout) => call("PUT", "/api/layout", { layout });
const toggle = (name) => state && call("PATCH", "/api/overlay", { [name]: !state.overlay[name] });
const pathOf = (source) => `/api/sources/${encodeURIComponent(source)}`;
const patch = (source, change) => call("PATCH", pathOf(source), change);

function remove(source) {
  const now = performance.now();
  if (isSure(source)) {
    if (now < sure.fromMs) return; // a double click is one answer
    sure.source = null;
    call("DELETE", pathOf(source), null, (text) => {
      refused = { source, text, untilMs: performance.now() + 6000 };
      showSources();
    });
  } else {
    sure = { source, fromMs: now + 500, untilMs: now + 5000 };
  }
  showSources();
}

const isSure = (source) => sure.source === source && performance.now() < sure.untilMs;

// What is seen

function show(answer) {
  state = answer;
  const { mosaic } = state;
  $("stage").style.aspectRatio = `${mosaic.width} / ${mosaic.height}`;
  $("stage").style.setProperty("--aspect", mosaic.width / mosaic.height);
  pressed("layouts", LAYOUTS, (name) => state.layout === name, arrange);
  pressed("overlays", OVERLAYS, (name) => state.overlay[name], toggle);
  showHits();
  showNumbers();
  showSources();
  showOutputs();
  showStages();
  $("clip").hidden = !state.clip;
  $("record").hidden = !state.recording.possible;
  $("record").classList.toggle("on", state.recording.file !== null);
  $("record").textContent = state.recording.file ? `Stop recording (${Math.round(state.recording.seconds)} s)` : "Record";
  showStream();
}

function pressed(place, names, isOn, act) {
  const group = $(place);
  if (!group.children.length) {
    for (const [name, text] of Object.entries(names)) {
      const button = document.createElement("button");
      button.textContent = text;
      button.dataset.name = name;
      button.addEventListener("click", () => act(name));
      group.append(button);
    }
  }
  for (const button of group.children) button.setAttribute("aria-pressed", isOn(button.dataset.name));
}

function matched(parent, wanted, make) {
  while (parent.children.length > wanted) parent.lastElementChild.remove();
  while (parent.children.length < wanted) parent.append(make());
  return [...parent.children];
}

function showHits() {
  const { width, height } = state.mosaic;
  const buttons = matched($("hits"), state.tiles.length, () => document.createElement("button"));
  state.tiles.forEach((tile, i) => {
    const button = buttons[i];
    const text = `Tile ${i + 1}: ${tile.title}`;
    if (button.title !== text) { button.title = text; button.setAttribute("aria-label", text); }
    button.onclick = () => promote(tile.tile);
    Object.assign(button.style, { left: `${tile.x / width * 100}%`, top: `${tile.y / height * 100}%`,
      width: `${tile.width / width * 100}%`, height: `${tile.height / height * 100}%`, zIndex: i + 100 * (tile.z + 100) });
  });
}

function showNumbers() {
  const now = performance.now();
  if (now - counted.at > 900) { // over the last second or so; the state has the mean of the whole run
    rate = counted.at && state.frames >= counted.frames ? (state.frames - counted.frames) / (now - counted.at) * 1000 : null;
    counted = { frames: state.frames, at: now };
  }
  const { mosaic } = state;
  const rows = [
    ["Mosaic", `${mosaic.width}×${mosaic.height}, ${trim(mosaic.fps)} fps, ${mosaic.codec}`],
    ["Clock", mosaic.clock],
    ["Runs at", rate === null ? "–" : `${rate.toFixed(1)} fps`],
    ["Tick to packet", `${state.latency_p50_ms.toFixed(0)} ms, p95 ${state.latency_p95_ms.toFixed(0)} ms`],
    ["Ticks left out", `${state.dropped_ticks}`],
    ["Encoder", state.encoder],
    ["Viewers", `${state.viewers} of ${state.max_viewers}`],
  ];
  $("numbers").replaceChildren(...rows.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function showSources() {
  const cards = matched($("sources"), state.sources.length, () => $("source").content.firstElementChild.cloneNode(true));
  state.sources.forEach((source, i) => {
    const card = cards[i], find = (name) => card.querySelector(name), title = find(".title");
    const tile = state.tiles.find((one) => one.source === source.id);
    card.dataset.state = source.state;
    if (document.activeElement !== title) title.value = source.title;
    title.onchange = () => { patch(source.id, { label: title.value }); title.blur(); };
    find(".state").textContent = source.state.replace("_", " ");
    const age = source.age_ms === null ? "–" : source.age_ms < 10000 ? `${source.age_ms.toFixed(0)} ms` : "old";
    find(".facts").replaceChildren(
      ...[["rate", `${source.fps.toFixed(1)} fps`], ["age", age], ["drops", `${source.dropped}`],
        ["errors", `${source.errors}`], ["reconnects", `${source.reconnects}`], ["tracks", `${source.tracks}`]]
        .map(([name, value]) => { const span = element("span", value); span.prepend(element("small", name)); return span; }));
    find(".facts").title = source.decoder ? `decoder: ${source.decoder}` : "";
    find(".pause").textContent = source.paused ? "Resume" : "Pause";
    find(".pause").onclick = () => patch(source.id, { paused: !source.paused });
    find(".large").hidden = find("a").hidden = !tile;
    if (tile) {
      find(".large").onclick = () => promote(tile.tile);
      find("a").href = `/api/snapshot?format=jpeg&tile=${tile.tile}`;
    }
    find(".remove").hidden = state.sources.length < 2;
    find(".remove").textContent = isSure(source.id) ? "Really?" : "Remove";
    find(".remove").classList.toggle("on", isSure(source.id));
    find(".remove").onclick = () => remove(source.id);
    const said = refused.source === source.id && performance.now() < refused.untilMs ? refused.text : source.failure ?? "";
    if (find(".failure").textContent !== said) find(".failure").textContent = said;
  });
  $("add").hidden = state.spare === null;
  $("add").querySelector("button").disabled = state.spare === 0;
  $("room").textContent = state.spare ? `room for ${state.spare} more` : "all places are taken: remove a source first";
}

function showOutputs() {
  const outputs = state.outputs.filter((output) => output.kind !== "preview");
  const rows = matched($("outputs"), outputs.length, () => $("output").content.firstElementChild.cloneNode(true));
  $("outputs").previousElementSibling.hidden = !outputs.length;
  outputs.forEach((output, i) => {
    const row = rows[i], find = (name) => row.querySelector(name);
    row.dataset.state = output.state;
    find(".kind").textContent = output.kind;
    find(".name").textContent = output.name.split("/").pop() || output.name;
    find(".name").title = output.name;
    find(".state").textContent = output.state + (output.dropped ? `, ${output.dropped} left out` : "");
    find(".failure").textContent = output.error ?? "";
  });
}

function showStages() {
  const rows = Object.entries(state.stages).map(([name, stage]) => {
    const row = document.createElement("tr");
    row.append(element("td", name), element("td", stage.device), element("td", stage.p50_ms.toFixed(1)),
      element("td", stage.p95_ms.toFixed(1)));
    row.title = `${stage.backend}: ${stage.reason}`;
    row.classList.toggle("fallback", state.cpu_fallback.includes(name));
    return row;
  });
  $("stages").tBodies[0].replaceChildren(...rows);
  const reasons = new Set(state.cpu_fallback.map((name) => state.stages[name]?.reason));
  $("fallback").textContent = state.cpu_fallback.length
    ? `On the CPU: ${state.cpu_fallback.join(", ")} (${[...reasons].join("; ")})` : "Nothing fell back to the CPU.";
}

function showStream() {
  const { way, codec, playing, message, latencyMs, dropped, skipped } = player.status;
  const parts = [WAYS[way], codec];
  if (playing && latencyMs !== null) parts.push(`${way === "webrtc" ? "about " : ""}${latencyMs.toFixed(0)} ms tick to screen`);
  if (dropped || skipped) parts.push(`${dropped + skipped} pictures left out here`);
  $("stream").textContent = parts.filter(Boolean).join(" · ");
  $("stream").classList.toggle("bad", !playing);
  const noted = performance.now() < note.untilMs ? note.text : "";
  const told = noted || (!reachable ? "The run does not answer; trying again" : "") || (playing ? "" : message);
  $("message").classList.toggle("good", noted !== "" && note.good);
  if ($("message").textContent !== told) $("message").textContent = told;
}

const trim = (value) => Number(value.toFixed(2)).toString();

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

// Controls

for (const [way, text] of Object.entries(WAYS)) {
  const option = element("option", text);
  option.value = way;
  $("way").append(option);
}
$("way").value = player.status.way;
$("way").addEventListener("change", () => player.use($("way").value));
$("full").addEventListener("click", full);
$("clip").addEventListener("click", async () => {
  const said = await call("POST", "/api/clip");
  if (said?.files) say(`Saved ${said.files.join(", ")}`, true);
});
$("record").addEventListener("click", () => call("PUT", "/api/recording", { recording: state.recording.file === null }));

$("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target, failure = form.querySelector(".failure");
  const body = Object.fromEntries([...new FormData(form)].map(([name, text]) => [name, text.trim()]));
  failure.textContent = "";
  const answer = await call("POST", "/api/sources", body, (text) => { failure.textContent = text; });
  if (!answer) return;
  form.reset();
  say(`Added ${body.id}`, true);
});

function full() {
  if (document.fullscreenElement) document.exitFullscreen();
  else $("stage").requestFullscreen?.().catch(() => {});
}

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const key = event.key.toLowerCase();
  if (key >= "1" && key <= "9") promote(Number(key) - 1);
  else if (KEYS[key]) arrange(KEYS[key]);
  else if (TOGGLES[key]) toggle(TOGGLES[key]);
  else if (key === "f") full();
  else return;
  event.preventDefault();
});

player.addEventListener("status", showStream);
setInterval(showStream, 500);
(async () => {
  for (;;) {
    if (!document.hidden) await call("GET", "/api/state");
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
})();
