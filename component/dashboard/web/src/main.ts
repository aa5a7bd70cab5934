/** Where the page starts: styles, the token out of the address, then the app. */
import { mount } from "svelte";
// First, so that a component's own rule wins over a shared one.
import "./style/tokens.css";
import "./style/base.css";
import "./style/parts.css";
import "./style/log.css";
import App from "./App.svelte";
import { route } from "./route.svelte";
import { session } from "./session.svelte";

// The address was read before the token left it.
if (session.takeFromAddress()) route.follow();

const target = document.getElementById("app");
if (!target) throw new Error("index.html has an element #app");
mount(App, { target });
