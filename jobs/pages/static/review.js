// The review page: a player with boxes over the picture, bands to seek by, keys for every button.
// Texts come from the page, facts from data-video; nothing here makes markup of a text.

const player = document.getElementById("player");
const screen = document.getElementById("screen");
const video = screen.querySelector("video");
const boxes = document.getElementById("boxes");
const facts = JSON.parse(player.dataset.video);
const bands = [...document.querySelectorAll(".seek")].map(withPlayhead);
const SPEEDS = [0.25, 0.5, 0.75, 1, 1.25, 1.5, 2, 4];
const SETTLE_MS = 500; // a key that was meant for the page before must not decide on this one
const STEP_S = 1;
const opened = performance.now();

// What goes into the row of a decision as `shown`.
const shown = { played_s: 0, clear_s: 0, segments: new Set(), preview: false };
let startS = 0; // where the player's clock is at the first picture: sound may begin before it
let lastS = 0;

// --- time -----------------------------------------------------------------------------------------------

function now() {
  return Math.max(0, video.currentTime - startS);
}

function duration() {
  const known = Number.isFinite(video.duration) ? video.duration - startS : 0;
  return known || Number(bands[0].svg.dataset.lengthS);
}

function seek(seconds) {
  video.currentTime = startS + Math.min(Math.max(0, seconds), duration());
  update(seconds);
}

// As the filter `seconds` of the pages writes it.
function written(seconds) {
  const tenths = Math.round(seconds * 10);
  if (tenths < 600) return `${(tenths / 10).toFixed(1)} s`;
  const minutes = Math.floor(tenths / 600);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  const hours = Math.floor(minutes / 60);
  return hours ? `${hours}:${String(minutes % 60).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

// --- boxes ----------------------------------------------------------------------------------------------

function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// The box of a track at a time, between the two that were sampled around it; null outside the track.
function boxAt(track, seconds) {
  const near = facts.frame_s; // the picture shown at a sampled time may be the one before
  if (!track.boxes.length || seconds < track.start - near || seconds > track.end + near) return null;
  const after = track.boxes.findIndex((box) => box[0] >= seconds);
  if (after === 0) return track.boxes[0].slice(1);
  if (after < 0) return track.boxes[track.boxes.length - 1].slice(1);
  const [t0, ...from] = track.boxes[after - 1];
  const [t1, ...to] = track.boxes[after];
  const share = t1 > t0 ? (seconds - t0) / (t1 - t0) : 0;
  return from.map((side, i) => side + share * (to[i] - side));
}

function drawBoxes(seconds) {
  const { width, height } = boxes.viewBox.baseVal;
  const size = textSize(width, height);
  const seen = facts.tracks.map((track) => [track.person, boxAt(track, seconds)]).filter(([, box]) => box);
  const drawn = seen.flatMap(([person, [x, y, w, h]]) => {
    const place = { x: x * width, y: y * height, width: w * width, height: h * height };
    const label = svg("text", { x: place.x, y: Math.max(place.y - size / 3, size), "font-size": size });
    label.textContent = personName(person);
    return [svg("rect", { ...place, class: "edge" }), svg("rect", { ...place, class: "box" }), label];
  });
  boxes.replaceChildren(...drawn);
  const people = seen.map(([person]) => personName(person)).join(", ");
  setText("here", people ? player.dataset.here.replace("{people}", people) : player.dataset.nobody);
}

// Of a label, in units of the picture, so that it is as large as other text whatever the picture's size is.
function textSize(width, height) {
  const scale = Math.min(boxes.clientWidth / width, boxes.clientHeight / height) || 1;
  return (0.85 * parseFloat(getComputedStyle(document.documentElement).fontSize)) / scale;
}

function personName(number) {
  return player.dataset.person.replace("{number}", number);
}

function setText(id, text) {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text;
}

// --- bands ----------------------------------------------------------------------------------------------

function withPlayhead(element) {
  const band = element.querySelector("svg");
  const line = band.appendChild(svg("line", { class: "playhead", x1: 0, x2: 0, y1: 0, y2: 100 }));
  element.addEventListener("click", (event) => {
    const place = band.getBoundingClientRect();
    seek(((event.clientX - place.left) / place.width) * Number(band.dataset.lengthS));
  });
  element.addEventListener("keydown", (event) => seekByKey(event));
  return { element, svg: band, line };
}

function seekByKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const step = event.shiftKey ? STEP_S / 10 : STEP_S;
  const targets = {
    ArrowLeft: now() - step,
    ArrowDown: now() - step,
    ArrowRight: now() + step,
    ArrowUp: now() + step,
    PageDown: now() - 10 * STEP_S,
    PageUp: now() + 10 * STEP_S,
    Home: 0,
    End: duration(),
  };
  if (!(event.key in targets)) return;
  event.preventDefault();
  seek(targets[event.key]);
}

function update(seconds) {
  drawBoxes(seconds);
  setText("time", `${written(seconds)} / ${written(duration())}`);
  for (const { element, svg: band, line } of bands) {
    const x = (1000 * seconds) / Number(band.dataset.lengthS);
    line.setAttribute("x1", x);
    line.setAttribute("x2", x);
    element.setAttribute("aria-valuenow", seconds.toFixed(1));
    element.setAttribute("aria-valuetext", written(seconds));
  }
}

// --- what was looked at ---------------------------------------------------------------------------------

function noteProgress() {
  const seconds = now();
  const passed = seconds - lastS;
  lastS = seconds;
  if (video.paused || passed <= 0 || passed > 2 * video.playbackRate) return; // it was a jump
  shown.played_s += passed;
  if (!screen.classList.contains("blurred")) shown.clear_s += passed;
  facts.segments.forEach(([start, end], i) => {
    if (seconds >= start && seconds <= end) shown.segments.add(i);
  });
}

function shownAsText() {
  return JSON.stringify({
    blurred: screen.classList.contains("blurred"),
    grey: screen.classList.contains("grey"),
    muted: video.muted,
    played_s: Math.round(shown.played_s * 10) / 10,
    clear_s: Math.round(shown.clear_s * 10) / 10,
    segments: [...shown.segments].slice(0, 500),
    preview: shown.preview,
  });
}

// --- buttons --------------------------------------------------------------------------------------------

function button(key) {
  return document.querySelector(`[data-key="${CSS.escape(key)}"]`);
}

function toggle(key, on) {
  const wanted = on ?? button(key).getAttribute("aria-pressed") !== "true";
  button(key).setAttribute("aria-pressed", String(wanted));
  if (key === "b") screen.classList.toggle("blurred", wanted);
  if (key === "g") screen.classList.toggle("grey", wanted);
  if (key === "m") video.muted = wanted;
}

function hide() {
  video.pause();
  for (const key of ["b", "g", "m"]) toggle(key, true);
}

function play() {
  if (video.paused) video.play().catch(() => {}); // what is wrong comes as the event `error`
  else video.pause();
}

function changeSpeed(step) {
  const place = SPEEDS.indexOf(video.playbackRate) + step;
  video.playbackRate = SPEEDS[Math.min(Math.max(place, 0), SPEEDS.length - 1)];
  setText("speed", `${video.playbackRate}×`);
}

function jump(step) {
  const starts = facts.segments.map(([start]) => start);
  const at = now();
  const near = 0.05;
  const target = step > 0
    ? starts.findIndex((start) => start > at + near)
    : starts.findLastIndex((start) => start < at - near);
  if (target < 0) return;
  shown.segments.add(target);
  seek(starts[target]);
}

const ACTIONS = {
  space: play,
  b: () => toggle("b"),
  g: () => toggle("g"),
  m: () => toggle("m"),
  "[": () => jump(-1),
  "]": () => jump(1),
  "<": () => changeSpeed(-1),
  ">": () => changeSpeed(1),
  "?": () => document.getElementById("help").showModal(),
};

for (const [key, action] of Object.entries(ACTIONS)) button(key).addEventListener("click", action);
video.addEventListener("click", play);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat || event.defaultPrevented) return;
  if (event.target.closest("input, textarea, select") || document.querySelector("dialog[open]")) return;
  const key = event.key === " " ? "space" : event.key.toLowerCase();
  if (key === "space" && event.target.closest("button, a")) return; // it presses that one
  const pressed = button(key);
  if (!pressed) return;
  event.preventDefault();
  if (pressed.name === "decision" && performance.now() - opened < SETTLE_MS) return;
  pressed.click();
});

// Before htmx reads the form.
document.addEventListener("submit", () => {
  document.querySelector("#decision [name=shown]").value = shownAsText();
}, true);

// --- the player's events --------------------------------------------------------------------------------

// Pictures tell their own times, more exactly than the clock.
function onPicture(_, picture) {
  if (video.currentTime === 0) startS = picture.mediaTime;
  if (!video.seeking) update(Math.max(0, picture.mediaTime - startS));
  video.requestVideoFrameCallback(onPicture);
}

async function onError() {
  if (shown.preview) {
    hide();
    setText("trouble", `${player.dataset.noPicture} ${await wordsOf(video.src)}`);
    return;
  }
  shown.preview = true;
  const answer = await fetch(`/videos/${facts.id}/media`, { method: "HEAD" });
  if (!answer.ok) { // gone or changed: there is nothing to make a preview of
    setText("trouble", await wordsOf(`/videos/${facts.id}/media`));
    return;
  }
  setText("trouble", player.dataset.preview);
  video.src = `/videos/${facts.id}/preview`;
}

// Why the server does not hand something out, in its words.
async function wordsOf(address) {
  const answer = await fetch(address, { headers: { "HX-Request": "true", Range: "bytes=0-0" } });
  if (answer.ok) return "";
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return page.body.textContent;
}

function onMetadata() {
  if (video.videoWidth) boxes.setAttribute("viewBox", `0 0 ${video.videoWidth} ${video.videoHeight}`);
  update(now());
}

video.removeAttribute("controls"); // they are for pages without script
video.muted = true;
video.addEventListener("loadedmetadata", onMetadata);
video.addEventListener("timeupdate", noteProgress);
video.addEventListener("seeked", () => update(now()));
video.addEventListener("error", onError);
if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(onPicture);
else video.addEventListener("timeupdate", () => update(now()));
if (video.error) onError();
else if (video.readyState) onMetadata();
else update(0);

document.addEventListener("visibilitychange", () => {
  if (document.hidden) hide();
});
window.addEventListener("pagehide", () => {
  hide();
  navigator.sendBeacon(`/videos/${facts.id}/leave?page=${player.dataset.page}`);
});
// The browser may keep the page and show it again, when somebody else holds the video.
window.addEventListener("pageshow", (event) => {
  if (event.persisted) location.reload();
});
