/** What the peer's control interface says, shared by the peer's process and the helper that starts it. */

/** Everything the peer is told when it starts, as JSON in its one argument. */
export interface PeerConfig {
  /** The peer's own domain, which must lead to `address` wherever the server under test looks it up. */
  readonly domain: string;
  readonly address: string;
  /** 443 unless given; 0 takes a free one, which then is part of the peer's handle. */
  readonly port: number;
  /** Loopback only; 0 takes a free one. */
  readonly controlPort: number;
  /** PEM files. */
  readonly cert: string;
  readonly key: string;
  /** A DNS server (`address` or `address:port`) that answers all the peer's look-ups, instead of this machine's. */
  readonly dns?: string;
  /** PEM file with authorities to trust beside the usual ones. */
  readonly ca?: string;
  readonly username: string;
  /** Where the peer keeps its key and what it received, so that it survives a restart. */
  readonly stateFile?: string;
}

/** The first line of the peer's standard output. */
export interface Ready {
  readonly origin: string;
  readonly handle: string;
  readonly controlPort: number;
}

export interface FoundActor {
  readonly id: string;
  readonly username: string;
  readonly name: string;
  readonly inbox: string;
  /** As the server itself names the account: `user@apex`. */
  readonly acct: string;
  /** Every address that was asked, redirects included, in order. */
  readonly hops: readonly string[];
}

export interface FollowState {
  readonly id: string;
  readonly handle: string;
  readonly actor: string;
  readonly state: "requested" | "accepted" | "rejected" | "undone";
  readonly requestedAt: string;
  readonly answeredAt?: string;
}

export interface ReceivedActivity {
  readonly id: string;
  readonly type: string;
  readonly actor: string;
  readonly objectId: string | null;
  /** The object's HTML, for posts. */
  readonly content: string | null;
  readonly receivedAt: string;
}

export interface PeerState {
  readonly follows: readonly FollowState[];
  /** In order of arrival, repetitions included. */
  readonly received: readonly ReceivedActivity[];
  /** How often each activity id arrived: anything above 1 is a duplicate. */
  readonly counts: Readonly<Record<string, number>>;
  /** Requests to the inbox that the peer refused: a bad signature, mostly. */
  readonly refused: readonly { readonly at: string; readonly status: number }[];
}

export type Failure = { readonly error: string };
