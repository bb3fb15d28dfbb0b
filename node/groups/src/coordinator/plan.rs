//! What to propose for members that come, go and change. Pure.

use std::collections::{BTreeMap, BTreeSet};

use seriatim_proto::internal::v1 as wire;

use crate::{
    apply::members_after,
    assign::{self, Counts},
    command::Refusal,
    records::by_topic,
    state::{Group, Member, Tp},
};

/// The command; `None` where nothing would change.
pub(super) fn update(
    group: &Group,
    joins: Vec<wire::MemberSpec>,
    leaves: Vec<String>,
    counts: &Counts,
) -> Result<Option<wire::UpdateMembers>, Refusal> {
    let members = members_after(group, joins.clone(), &leaves)?;
    let strategy = assign::choose(&members);
    let targets = assign::assign(strategy, &members, counts);
    let comes_or_goes = !joins.is_empty() || leaves.iter().any(|id| group.members.contains_key(id));
    if !comes_or_goes && (members.is_empty() || is_as_before(group, &targets)) {
        return Ok(None);
    }
    let target = |(member_id, tps): (String, BTreeSet<Tp>)| wire::MemberTarget {
        member_id,
        partitions: by_topic(&tps),
    };
    Ok(Some(wire::UpdateMembers {
        expected_generation: group.generation,
        joins,
        leaves,
        strategy: strategy.into(),
        targets: targets.into_iter().map(target).collect(),
    }))
}

fn is_as_before(group: &Group, targets: &BTreeMap<String, BTreeSet<Tp>>) -> bool {
    let same = |(id, member): (&String, &Member)| targets.get(id) == Some(&member.target);
    group.members.iter().all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_proposed_where_nothing_changes() {
        let counts: Counts = [("t".into(), 4)].into();
        let spec = wire::MemberSpec {
            member_id: "m".to_owned(),
            topics: vec!["t".to_owned()],
            ..wire::MemberSpec::default()
        };
        let mut group = Group::default();
        let joined = update(&group, vec![spec.clone()], Vec::new(), &counts);
        let joined = joined.unwrap().unwrap();
        assert_eq!(joined.targets[0].partitions[0].partitions, [0, 1, 2, 3]);
        group.members = members_after(&group, vec![spec], &[]).unwrap();
        group.members.get_mut("m").unwrap().target = (0..4).map(|p| Tp::new("t", p)).collect();
        let again = |counts| update(&group, Vec::new(), Vec::new(), counts).unwrap();
        assert_eq!(again(&counts), None);
        assert_ne!(again(&[("t".into(), 5)].into()), None);
        let stranger = vec!["x".to_owned()];
        assert_eq!(update(&group, Vec::new(), stranger, &counts), Ok(None));
        let gone = update(&group, Vec::new(), vec!["m".to_owned()], &counts);
        assert_eq!(gone.unwrap().unwrap().targets, []);
    }
}
