%% The works of actors.rs on Erlang/OTP: prints one number.
-module(hypha_peer).
-behaviour(gen_server).
-export([main/1, start_link/1, init/1, handle_call/3, handle_cast/2]).
-export([sup_init/1]).

-define(TELLS, 2000000).
-define(ASKS, 300000).
-define(SPAWNS, 100000).
-define(RESTARTS, 20000).

main([Work]) ->
    logger:set_primary_config(level, none),
    io:format("~p~n", [work(Work)]),
    halt(0).

start_link(Told) -> gen_server:start_link(?MODULE, Told, []).
init({supervisor, Told}) -> sup_init(Told);
init(Told) -> case Told of none -> ok; Pid -> Pid ! {up, self()} end, {ok, 0}.
handle_call(total, _, N) -> {reply, N, N}.
handle_cast(add, N) -> {noreply, N + 1};
handle_cast(crash, N) -> {stop, crash, N}.

sup_init(Told) ->
    Child = #{id => child, start => {?MODULE, start_link, [Told]}, restart => permanent, shutdown => brutal_kill},
    {ok, {#{strategy => simple_one_for_one, intensity => 1000000, period => 1}, [Child]}}.

rate(N, Began) -> N * 1000000000 / (erlang:monotonic_time(nanosecond) - Began).

work("tell") ->
    {ok, P} = start_link(none),
    Began = erlang:monotonic_time(nanosecond),
    [gen_server:cast(P, add) || _ <- lists:seq(1, ?TELLS)],
    ?TELLS = gen_server:call(P, total, infinity),
    rate(?TELLS, Began);
work("ask") ->
    {ok, P} = start_link(none),
    Began = erlang:monotonic_time(nanosecond),
    [gen_server:call(P, total) || _ <- lists:seq(1, ?ASKS)],
    rate(?ASKS, Began);
work("spawn") ->
    {ok, S} = supervisor:start_link(?MODULE, {supervisor, none}),
    Began = erlang:monotonic_time(nanosecond),
    [supervisor:start_child(S, []) || _ <- lists:seq(1, ?SPAWNS)],
    rate(?SPAWNS, Began);
work("restart") ->
    {ok, S} = supervisor:start_link(?MODULE, {supervisor, self()}),
    {ok, P} = supervisor:start_child(S, []),
    receive {up, P} -> ok end,
    Began = erlang:monotonic_time(nanosecond),
    restarts(P, ?RESTARTS),
    rate(?RESTARTS, Began);
work("memory") ->
    {ok, S} = supervisor:start_link(?MODULE, {supervisor, none}),
    Before = resident(),
    [supervisor:start_child(S, []) || _ <- lists:seq(1, ?SPAWNS)],
    (resident() - Before) / ?SPAWNS.

restarts(_, 0) -> ok;
restarts(P, N) ->
    gen_server:cast(P, crash),
    receive {up, Next} -> restarts(Next, N - 1) end.

resident() ->
    {ok, Text} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = string:split(binary_to_list(Text), " ", all),
    list_to_integer(Pages) * 4096.
