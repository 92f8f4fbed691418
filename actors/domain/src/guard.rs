//! The licence's guard: looks for the hardware token, and says when the licence stops or starts to hold.

use std::{sync::Arc, time::Duration};

use kit::{
    Actor, Address, AddressError, ChildSpec, Cx, ExitReason,
    alarm::{Condition, Severity},
    token::{Token, TokenError},
};
use rand::RngCore;
use strum::IntoStaticStr;

use crate::{
    Services,
    estate::Estate,
    licence::{Standing, TokenState, token_proves},
};

/// The actor `licence/token`. It has looked once before what comes after it starts.
pub(crate) fn child(services: &Services) -> Result<ChildSpec, AddressError> {
    let s = services.clone();
    Ok(ChildSpec::worker(Address::new("licence/token")?, move |_| {
        let (estate, token, every) = (s.estate.clone(), s.token.clone(), s.token_check);
        async move {
            let seen = look(token.clone()).await;
            estate.change(|p| p.token = seen);
            Ok(Guard { estate, token, every, said: None })
        }
    }))
}

async fn look(token: Option<Arc<dyn Token>>) -> TokenState {
    let Some(token) = token else {
        return TokenState::Absent("[token] module is not set in the configuration".into());
    };
    // The device may take its time, and a bad one for ever; it has a thread of its own.
    let proof = tokio::task::spawn_blocking(move || prove(token.as_ref())).await;
    match proof {
        Ok(Ok(state)) => state,
        Ok(Err(e)) => TokenState::Absent(e.to_string()),
        Err(e) => TokenState::Absent(e.to_string()),
    }
}

fn prove(token: &dyn Token) -> Result<TokenState, TokenError> {
    let mut challenge = [0; 32];
    rand::rng().fill_bytes(&mut challenge);
    let (identity, signature) = token.prove(&challenge)?;
    match token_proves(&identity, &challenge, &signature) {
        true => Ok(TokenState::Proven(identity)),
        false => Err(TokenError::Device("its signature does not fit its key".into())),
    }
}

struct Guard {
    estate: Estate,
    token: Option<Arc<dyn Token>>,
    every: Duration,
    said: Option<Standing>,
}

#[derive(Debug, IntoStaticStr)]
enum GuardMsg {
    Look,
}

/// Class of the alarm of a licence that does not hold.
const LICENCE: &str = "domain::licence::invalid";

impl Guard {
    fn judge(&mut self, cx: &mut Cx<'_, Self>) {
        let standing = self.estate.picture().standing(cx.node().clock().now());
        let holds = matches!(standing, Standing::Valid | Standing::Evaluation);
        metrics::gauge!("hypha_licence_holds").set(f64::from(u8::from(holds)));
        if self.said.as_ref() != Some(&standing) {
            match holds {
                true => tracing::info!(%standing, "licence"),
                false => {
                    tracing::error!(%standing, "the licence does not hold; evaluation terms are in force")
                }
            }
            match holds {
                true => cx.node().alarms().clear(LICENCE, None, "licence"),
                false => {
                    let fallen = Condition::new(LICENCE, Severity::Major, "licence");
                    cx.node().alarms().raise(fallen.cause(&standing));
                }
            }
            self.said = Some(standing);
        }
    }
}

impl Actor for Guard {
    type Msg = GuardMsg;

    fn started(&mut self, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        self.judge(cx);
        cx.after(self.every, GuardMsg::Look);
        Ok(())
    }

    fn handle(&mut self, GuardMsg::Look: GuardMsg, cx: &mut Cx<'_, Self>) -> Result<(), ExitReason> {
        cx.wait(look(self.token.clone()), |guard, seen, cx| {
            guard.estate.change(|p| p.token = seen);
            guard.judge(cx);
            cx.after(guard.every, GuardMsg::Look);
            Ok(())
        });
        Ok(())
    }

    fn inspect(&self) -> serde_json::Value {
        serde_json::json!({
            "token": self.estate.picture().token,
            "standing": self.said.as_ref().map(ToString::to_string),
            "every_s": self.every.as_secs(),
        })
    }
}
